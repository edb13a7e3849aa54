"""The page at ``/``, and the figures that it and ``delen top`` show."""
