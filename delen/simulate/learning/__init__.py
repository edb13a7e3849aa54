"""Trains learnt policies in the simulator."""
