"""Mask models, and the generator that users call."""
