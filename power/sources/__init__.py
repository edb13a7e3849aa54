"""Power sources: sensors of boards and GPUs, and a model where there is none."""
