"""Usefulness of an SAE to a reader: each measure between its floor and its ceiling, and one word."""
