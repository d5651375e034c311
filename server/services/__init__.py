"""The services that come with the server."""
