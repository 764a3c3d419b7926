"""From the store to tables and figures. Reads records; never builds a component, never imports torch."""
