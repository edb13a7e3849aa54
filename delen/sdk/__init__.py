"""The Python SDK: clients of the daemon."""
