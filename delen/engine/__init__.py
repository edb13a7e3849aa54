"""The engine: loaded models, the executor that runs their segments, and the answers it writes."""
