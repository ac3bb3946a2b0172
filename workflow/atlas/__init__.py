"""SAE Atlas: sparse autoencoders with an audit before, nulls beside and an outcome after every number."""

# Imported when they are asked for: a module of the package must not cost torch, nor depend on all of it.
_FROM_OPEN = ("open_sae", "read_activations")


def __getattr__(name: str):
    if name not in _FROM_OPEN:
        raise AttributeError(f"module 'atlas' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module("atlas.open"), name)
