"""Measure latents: their firings, contexts, coherence of contexts, and drift between corpora."""
