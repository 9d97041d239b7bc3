"""How tables are written down, one module per format: each gives column names and records, text or typed."""
