"""Compare an SAE with its twins, which are trained nulls."""
