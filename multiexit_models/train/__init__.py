"""Trains all exits of a network together, so that it can stop and go on without a difference.

Read ``recipe`` first (what a training does, as a value), then ``training`` (``train`` and
``predict``) and ``run`` (one training from step to step). ``losses``, ``optimiser`` and ``augment``
are parts of a step. ``checkpoint``, ``weights`` and ``random_state`` keep a training in files;
``device`` chooses processor and precision.
"""
