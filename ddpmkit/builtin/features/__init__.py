"""Built-in features, one a file."""
