"""What a component is, how it is written as text, and how plugins bring new ones. No torch, no numpy."""
