"""The engine: loaded models, the worker that runs their segments, and the answers it writes."""
