"""``python -m client`` is the `client` command."""

from client.cli import main

main()
