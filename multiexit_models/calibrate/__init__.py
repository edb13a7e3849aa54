"""Makes confidences mean what they say, from the logits of held-out samples.

Read ``temperature`` first (one temperature an exit, and the calibration error), then ``criterion``
(which kind of confidence is cheapest, and the calibration table behind all guarantees).
``provenance`` collects what a bundle records of its exits and of the software that made it.
"""
