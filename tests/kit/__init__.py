"""What tests of several rooms share: made-up inputs, whole runs on a tiny model, references."""
