"""SAE Bench's own evaluations of our SAEs, in its own environment, beside ours on the same tokens."""
