"""Labelled data from where people keep them, as arrays that training and calibration read."""
