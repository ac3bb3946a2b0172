"""Evaluation: what an SAE does on text, under two protocols, with intervals, nulls and an outcome."""
