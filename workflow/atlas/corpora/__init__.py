"""Text: sources become documents split by hash, documents become packed tokens."""
