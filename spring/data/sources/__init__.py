"""Where interactions come from, one module per source."""
