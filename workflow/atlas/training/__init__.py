"""Training of sparse autoencoders: one loop for every architecture, resumable to the bit."""
