"""Dispatch policies of other systems, each after its paper."""
