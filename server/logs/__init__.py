"""The log of a process: tutorial lines on stdout, warnings and errors on stderr."""
