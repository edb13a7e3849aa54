"""The vocabulary: what every other package speaks."""
