"""SPRInG: continual personalization by selective adaptation and retrieval-interpolated generation."""
