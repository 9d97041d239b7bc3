"""What is measured of answers and adapters, and how sure it is."""
