"""SAE Atlas: sparse autoencoders with an audit before, nulls beside and an outcome after every number."""

from importlib import import_module

# By name alone: a job that imports a module of the library must not depend on all of it.
_OFFERED = ("OpenedSae", "open_sae", "read_activations")


def __getattr__(name):
    if name in _OFFERED:
        return getattr(import_module("atlas.api"), name)
    raise AttributeError(f"module 'atlas' has no attribute {name!r}; it offers {', '.join(_OFFERED)}")
