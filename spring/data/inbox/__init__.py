"""Data that arrive: what was taken from an inbox, once each, and which periods that closes."""
