"""Regimes provoked on purpose: does the taxonomy call them by their name? docs/metrics.md, section 16."""
