"""Shares of measured energy: which request used which joules."""
