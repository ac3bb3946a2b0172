"""Transfer: an SAE judged away from where it was trained. docs/metrics.md, section 17."""
