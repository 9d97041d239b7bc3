"""What the arms of an experiment ask of the cells: whose rows, which adapters, what is retrieved."""
