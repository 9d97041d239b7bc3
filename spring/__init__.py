"""SPRInG (arXiv 2601.09974) and its rivals: an engine, the method in reading order, data and measures.

engine/    many adapters at once on one frozen model; knows nothing of what lies above it
data/      interactions: sources, quarantine, chronological split
method/    SPRInG, one file per step
rivals/    every other method, one file (or folder) each
measures/  metrics, statistics, tests, transfer
settings/  what an experiment may set, and what is refused
code.py    which code a result depends on; store: results that are never computed twice
"""
