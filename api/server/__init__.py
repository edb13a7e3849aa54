"""The HTTP server: listeners, connections, bodies."""
