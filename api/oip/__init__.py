"""The Open Inference Protocol, version 2: one core, and its transports."""
