"""The sparse parts of an update as compiled loops for the CPU."""
