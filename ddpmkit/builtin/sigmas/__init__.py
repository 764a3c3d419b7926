"""Built-in sigmas, one a file."""
