"""Temperatures, calibration tables and what a bundle records of itself."""
