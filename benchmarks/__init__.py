"""Every claim on speed, size and accuracy, each beside its baseline in one run."""
