"""What latents are said to mean: examples, labels, and whether the labels stand the test beside their controls."""
