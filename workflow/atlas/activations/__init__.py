"""The activation store: written once per corpus shard for all hooks of a model, read back verified."""
