"""Trained SAEs in the formats of other tools, and the proof that those tools compute the same."""
