"""A study is a named grid; its work is a graph of content-addressed stages; its results are read off the store."""
