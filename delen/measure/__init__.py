"""How profiles are measured."""
