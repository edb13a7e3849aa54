"""How a text becomes a sample, the same at training, calibration and serving."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def text_to_bytes(text: str, length: int) -> NDArray[np.uint8]:
    """The UTF-8 bytes of ``text``, uint8 ``[length]``: cut between two characters where there are
    more, padded with zeros where there are fewer.

    Raises ValueError for half a surrogate pair, which UTF-8 cannot hold.
    """
    encoded = text.encode("utf-8")
    end = min(len(encoded), length)
    while 0 < end < len(encoded) and encoded[end] & 0xC0 == 0x80:
        end -= 1
    padded = np.zeros(length, np.uint8)
    padded[:end] = np.frombuffer(encoded, np.uint8, end)
    return padded
