"""The experiment in Weights & Biases: what is sent, under which names, and nothing of users unless asked for."""
