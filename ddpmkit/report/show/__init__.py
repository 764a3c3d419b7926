"""Tables of text and what they look like, a file a form; the page; the study card."""
