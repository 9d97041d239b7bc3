"""The cell store: results that are never computed twice."""
