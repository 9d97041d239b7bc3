"""What a live project serves: versions of adapters, and which of every user's answers, as values."""
