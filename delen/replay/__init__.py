"""Replays traces against a daemon or an engine: every request is sent at its time."""
