"""Every claim on speed, size and accuracy, each measured beside its baseline."""
