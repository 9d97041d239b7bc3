"""What cannot be run here, simulated from what was measured: workers, users, seconds, bytes, cost."""
