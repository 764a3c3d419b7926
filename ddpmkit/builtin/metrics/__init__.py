"""Built-in metrics, one a file; the mathematics is in ``ddpmkit.distances``."""
