"""Plans: which exit, at which threshold, with which guarantee."""
