"""From the store to tables and figures, in four rooms; never builds a component, never imports torch.

``read`` makes tidy frames of records, ``judge`` says what they come to, ``draw`` makes figures of it and ``show`` text.
Each room knows those before it; ``write`` puts them together.
"""
