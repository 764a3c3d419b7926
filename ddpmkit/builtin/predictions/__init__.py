"""Built-in predictions, one a file."""
