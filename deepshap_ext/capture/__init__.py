"""Watching a forward pass: which operations run, what depends on the input, where the batch lies.

Begin with ``mode.py``, which sees every operation, and ``hooks.py``, which runs the model. ``docs/inside.md`` says what each file is for.
"""
