"""Label latents: examples, labels, and tests of labels beside their controls."""
