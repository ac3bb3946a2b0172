"""Activations whose features are known: the truth, rows drawn from it, and how much of it a dictionary found."""
