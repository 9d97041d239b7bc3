"""Many adapters at once on one frozen model: batches of rows, scoring, training, decoding.

Tensor shapes are written with one legend: R rows, N tokens of all rows together, T longest row, D width,
V vocabulary, S adapter slots, r rank, H query heads, K key-value heads, d head width.
"""
