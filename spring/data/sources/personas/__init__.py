"""Synthetic users whose writing habits drift in known ways (docs/personas.md)."""
