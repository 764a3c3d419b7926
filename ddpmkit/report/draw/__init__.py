"""Figures: one palette and one saver, for a report, a page and ``ddpmkit plot``."""
