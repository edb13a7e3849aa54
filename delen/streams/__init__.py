"""Streams of frames: sources, what is sent of them under a deadline, and answers of two places."""
