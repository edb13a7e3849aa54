"""The composition root: settings, models, runtime, daemon."""
