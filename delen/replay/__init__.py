"""Traces replayed against what runs: every request at its time, however late answers come."""
