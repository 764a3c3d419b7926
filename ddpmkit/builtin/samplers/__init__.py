"""Built-in samplers, one a file."""
