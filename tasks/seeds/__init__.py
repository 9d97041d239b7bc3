"""Runs of one experiment under several seeds: kept side by side (keeping.py) and pooled (pooling.py)."""
