"""Puts exits on any torch classifier whose forward can be cut into a chain.

Read ``exits`` first: ``attach_exits`` goes from a module to a multi-exit network. ``unwrap`` takes
the module out of its wrappers, ``trace`` records the forward, ``observe`` runs it, ``channels``
finds the axis of channels, ``cut_points`` finds where one tensor alone is needed, ``cut`` cuts
there. ``placement`` and ``probe`` choose places by cost and accuracy; ``heads`` has the
classifiers; ``backbone`` loads an engineer's own network for ``delen build``.
"""

from multiexit_models.attach.cut_points import CutPoint, cut_points
from multiexit_models.attach.exits import attach_exits
from multiexit_models.attach.heads import HeadFactory

__all__ = ["CutPoint", "HeadFactory", "attach_exits", "cut_points"]
