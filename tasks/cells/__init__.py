"""What the stages compute, kept cell by cell under all that each follows from (spring/store.py)."""
