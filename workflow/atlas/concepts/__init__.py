"""Labelled concepts: latents as detectors, and as directions that steer text, beside differences of class means."""
