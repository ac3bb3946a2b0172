"""Measure what latents cause: interventions in a running model, effects beside their nulls, attributions of logits."""
