"""Finance: what dictionaries trained on different mixes see in financial text. docs/metrics.md, section 15."""
