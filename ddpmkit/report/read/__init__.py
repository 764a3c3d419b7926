"""Records of a store, or of a CSV, as tidy frames: what is there, before anything is judged."""
