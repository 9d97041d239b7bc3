"""Measurements of speed and memory; each module is a script."""
