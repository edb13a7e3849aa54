"""Devices whose true joules are known. What is here imports nothing of what it judges."""
