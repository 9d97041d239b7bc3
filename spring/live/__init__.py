"""What is decided of adapters that are in service: whether a new one may take the place of the one before."""
