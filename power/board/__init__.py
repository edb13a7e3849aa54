"""What a board says of itself beside its power: load, clocks, fans."""
