"""The folder that is served.

Read ``manifest`` first (the folder and its manifest), then ``calibration`` (each exit on held-out
data) and ``confidence`` (what its numbers are). ``images`` and ``samples`` turn files into samples.
"""
