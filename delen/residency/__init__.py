"""Which segments are in memory."""
