"""Exports a trained network as graphs, proves that they compute the same, and writes the bundle.

Read ``bundle`` first (``write_bundle``: from network and data to a folder), then ``exported`` (a
chain of exported stages: logits, files, check). ``stage`` is what one graph computes; ``graphs``
(ONNX) and ``programs`` (torch) export it; ``precision`` converts graphs to fewer bits; ``chain``
runs them one after the other; ``folder`` makes the bundle appear whole or not at all.
"""
