"""Power modes, clocks and thermal zones of the board."""
