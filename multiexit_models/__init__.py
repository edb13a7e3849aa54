"""Makes bundles of multi-exit networks: trains, calibrates, exports. Serving imports none of it.

``bundles/`` holds the bundles that ship with delen. Everything else here needs the ``train``
extra, except this module, ``command`` and ``recipe``.
"""
