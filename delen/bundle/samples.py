"""How a text or a recording becomes a sample, the same at training and at serving."""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

_MOST_CHUNKS = 1000


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


def pcm_to_samples(frames: NDArray[np.int16], samples: int) -> NDArray[np.int16]:
    """``frames``, int16 ``[n]``, cut or padded with silence at the end: int16 ``[samples]``."""
    padded = np.zeros(samples, np.int16)
    kept = frames[:samples]
    padded[: len(kept)] = kept
    return padded


def read_wav(raw: bytes) -> tuple[NDArray[np.int16], int]:
    """A WAV file's recording, int16 ``[n]``, and its sample rate in Hz.

    It is 8- or 16-bit PCM; two channels are averaged. Raises ValueError with the reason why ``raw``
    cannot be read.
    """
    _refuse_many_chunks(raw)
    try:
        with wave.open(io.BytesIO(raw)) as file:
            parameters = file.getparams()
            contents = file.readframes(parameters.nframes)
    except (wave.Error, EOFError, RuntimeError) as error:
        reason = str(error) or "it is cut off"
        raise ValueError(f"it is not a WAV file of PCM samples: {reason}") from None
    channels, width, rate = parameters.nchannels, parameters.sampwidth, parameters.framerate
    if channels > 2 or width > 2:
        raise ValueError(
            f"it has {channels} channels of {8 * width} bits; mono and stereo of 8 or 16 bits "
            "are read"
        )
    if rate < 1:
        raise ValueError(f"its sample rate is {rate} Hz")
    present = len(contents) // (channels * width)
    if present < parameters.nframes:
        raise ValueError(
            f"it is cut off: {parameters.nframes} samples are announced, {present} are there"
        )
    if not present:
        raise ValueError("it has no samples")
    return _mono(contents, channels, width), rate


def _refuse_many_chunks(raw: bytes) -> None:
    """ValueError for more chunks than recordings have: `wave` needs seconds for millions."""
    position = 12
    for _ in range(_MOST_CHUNKS):
        if position + 8 > len(raw):
            return
        size = int.from_bytes(raw[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    raise ValueError(f"it is not a WAV file of PCM samples: it has more than {_MOST_CHUNKS} chunks")


def _mono(contents: bytes, channels: int, width: int) -> NDArray[np.int16]:
    if width == 1:  # WAV's 8-bit samples are unsigned, silence being 128
        levels = (np.frombuffer(contents, np.uint8).astype(np.int32) - 128) * 256
    else:
        levels = np.frombuffer(contents, "<i2").astype(np.int32)
    mono: NDArray[np.int16] = (levels.reshape(-1, channels).sum(axis=1) // channels).astype(
        np.int16
    )
    return mono
