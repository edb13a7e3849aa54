"""Speaks HTTP: Flask views over the engine, and the server that runs them."""
