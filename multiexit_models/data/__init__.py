"""Reads labelled data from where people keep them into four disjoint parts.

Read ``dataset`` first: what training and calibration get. ``source`` chooses the reader for what
lies at a path, ``reading`` has its options. ``images``, ``audio``, ``text``, ``cifar`` and
``torchvision_sets`` are the readers; they share ``folders`` (a folder a class), ``gather`` (many
files to one array, perhaps on disk) and ``splits`` (which sample belongs to which part).
"""
