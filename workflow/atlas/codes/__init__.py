"""Codes: which latents fire on which rows of an evaluation corpus, and how strongly; computed once, kept by latent."""
