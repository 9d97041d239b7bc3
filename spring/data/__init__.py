"""Interactions, from a source to periods: rows, what is set aside and why, and the split in time."""
