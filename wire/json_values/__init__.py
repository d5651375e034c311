"""JSON for structs of a schema: read into values to write, and made of views."""
