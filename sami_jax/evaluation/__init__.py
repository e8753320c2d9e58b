"""Judges, win rates, and the measurement of a model on held-out queries."""
