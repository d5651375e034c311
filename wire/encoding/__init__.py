"""The encoding: structs and lists of a message, as views that read where the bytes lie."""
