"""Plays traces on a simulated device: arrivals, populations, runs and their upper bound."""
