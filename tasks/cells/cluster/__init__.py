"""What is missing, computed on a Ray cluster (docs/scale.md). Nothing here reaches a result, nor any key."""
