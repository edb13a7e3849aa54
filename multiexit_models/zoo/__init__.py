"""The networks that delen knows by name.

Read ``entry`` first (what the zoo knows of one network), then ``registry`` (the list). A module
for each family makes its networks and lists them in ``ENTRIES``: ``residual``, ``msdnet`` (with its
layers in ``msdnet_layers``), ``vision`` (torchvision's), ``audio``, ``wav2vec`` and ``text``.
torchvision and transformers are imported only when a network of theirs is made.
"""
