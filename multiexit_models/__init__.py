"""Makes bundles of multi-exit networks. Serving imports none of it.

Read ``network`` first (what a multi-exit network is), then ``build``: the steps of ``delen build``
in order, each from its own package. ``data`` reads samples, ``zoo`` and ``attach`` make networks,
``train`` trains them, ``calibrate`` and ``export`` make the bundle, ``report`` describes it.

``bundles/`` holds the bundles that ship with delen. All modules but this one, ``command``,
``spec`` and ``progress`` need the ``train`` extra.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read by ONNX Runtime as it is imported
