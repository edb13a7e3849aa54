"""The HTTP server: connections, bodies, deferred responses."""
