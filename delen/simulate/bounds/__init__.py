"""What no schedule can beat: the most that a clairvoyant could answer rightly and in time."""
