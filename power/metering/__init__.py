"""Energy profiles measured in blocks of one exit back to back."""
