"""Traces, arrivals, populations and what nobody can beat: a device played on paper."""
