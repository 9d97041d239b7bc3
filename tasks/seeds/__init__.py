"""Runs of one experiment under several seeds: kept (keeping.py), pooled (pooling.py), shown (pages.py)."""
