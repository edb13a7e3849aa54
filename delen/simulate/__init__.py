"""Plays traces on a simulated device: arrivals, models, runs and their upper bound."""
