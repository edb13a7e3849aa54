"""Streams of frames over links: what client controllers choose, and how it ends."""
