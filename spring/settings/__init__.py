"""What an experiment may set: strict models of params.yaml, each bad key refused by name."""
