"""What holds for every connection, whichever engine serves it."""
