"""What a latent is: when it fires, in which contexts, whether they cohere, and whether it moves between corpora."""
