"""What `evaluate` reads off the answers: comparisons, costs, what drift scores find, transfer."""
