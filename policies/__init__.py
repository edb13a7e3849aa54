"""What decides: the planner and the exit policies. Pure: no clock, no I/O, no threads."""
