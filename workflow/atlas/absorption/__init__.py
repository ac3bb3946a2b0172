"""First-letter absorption: whether a letter's latents stay silent on words where other latents take their part."""
