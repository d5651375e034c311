"""What server and client share: objects with methods, and capabilities, by the names of schemas."""
