"""Loading segments on demand."""
