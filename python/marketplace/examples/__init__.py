"""Runnable examples: ``python -m marketplace.examples.mnist``."""
