"""Definition of a massive activation: one for the audit, the store, training and evaluation."""

# A row is a massive activation when its norm exceeds this multiple of its hook's median norm over counted rows.
# Sun et al. 2024 (arXiv 2402.17762) see them at a few places of every context, with norms far above all others.
MASSIVE_FACTOR = 10.0
