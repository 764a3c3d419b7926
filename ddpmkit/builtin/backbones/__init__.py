"""Built-in backbones, one a file."""
