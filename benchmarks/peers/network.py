"""The network as every server of the comparison runs it. Each environment gets a copy of this file,
so it imports nothing of the project."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort


def open_network(path: str) -> Callable[[Any], Any]:
    """Logits of a batch of images, on one thread that does not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})[0]


def image_of(body: bytes) -> Any:
    return np.frombuffer(body, np.uint8).reshape(32, 32, 3)
