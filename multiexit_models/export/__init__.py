"""Trained networks as the graphs that are served, and the proof that they agree."""
