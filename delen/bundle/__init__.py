"""The folder that is served: manifest, calibration, and how files become samples."""
