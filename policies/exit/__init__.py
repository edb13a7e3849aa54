"""Exit policies: stop at this exit, or go on."""
