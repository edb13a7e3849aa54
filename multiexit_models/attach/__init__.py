"""Exits on a torch classifier: where its forward can be cut, and which cuts pay."""
