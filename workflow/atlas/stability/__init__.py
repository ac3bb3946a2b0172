"""Stability: which latents of a dictionary come back when it is trained again with another seed."""
