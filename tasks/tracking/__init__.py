"""The experiment in Weights & Biases: what is sent, how it is called, and nothing of users unless asked."""
