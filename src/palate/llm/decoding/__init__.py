"""Decoding of our own: drafts from what was written before, verified by the model in one pass."""
