"""Histograms of firing densities."""
