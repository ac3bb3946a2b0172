"""How often latents fire: histograms of firing densities."""
