"""Two servers against each other, measured by turns: blocks, looks, verdict."""
