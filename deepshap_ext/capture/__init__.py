"""Watching a forward pass: which operations run, what depends on the input, where the batch lies."""
