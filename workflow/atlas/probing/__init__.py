"""Sparse probing: whether few latents are enough to tell labelled prompts apart."""
