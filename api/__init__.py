"""Speaks HTTP: addresses on the event loop, Flask views, and the server that runs them."""
