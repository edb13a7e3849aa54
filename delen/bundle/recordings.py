"""How a recording becomes a sample, the same at training, calibration and serving."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from delen.bundle.media import RECORDINGS
from delen.errors import InvalidInput, MissingExtra, TooLarge

MAX_SECONDS = 600
"""A longer recording is refused."""

RATES = (1000, 768_000)
"""The least and the greatest sample rate, in Hz."""

_QUALITY = "HQ"
_MARGIN = 500
"""Samples of the lower rate beyond the last one that are read too: more than the filter spans."""
_AT_ONCE = 2**20
"""Values that are decoded at a time, of all channels together."""
_STREAMED = 0x7FFF_0000
"""A writer that does not know the length announces this many bytes or more."""
_FORMATS = {"WAV": ("WAV", "WAVEX", "RF64"), "FLAC": ("FLAC",), "OGG": ("OGG",)}


def decode_recording(
    encoded: bytes, sample_rate: int, samples: int, form: str | None = None
) -> NDArray[np.int16]:
    """The first ``samples`` of an encoded recording at ``sample_rate`` (Hz): int16 ``[samples]``.

    WAV of any width (streamed headers included), FLAC and Ogg (Vorbis, Opus); ``form`` allows one
    of the three alone. Channels are averaged, another rate is resampled, silence is appended where
    the recording is shorter. 16-bit samples of one channel at ``sample_rate`` stay as they are.

    Raises InvalidInput for what does not decode, TooLarge beyond ``MAX_SECONDS``, MissingExtra
    without soundfile, or soxr where the rate differs.
    """
    try:
        import soundfile
    except (ModuleNotFoundError, OSError) as error:
        raise MissingExtra("soundfile (to decode recordings)", "audio") from error
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            _check(file, encoded, form)
            rate = int(file.samplerate)
            spare = _MARGIN * max(1.0, rate / sample_rate)
            mono = _read_mono(file, math.ceil(samples * rate / sample_rate + spare))
    except (soundfile.SoundFileRuntimeError, RuntimeError, ValueError) as error:
        reason = str(getattr(error, "error_string", error))
        raise InvalidInput(f"the recording does not decode: {reason}", "input") from error
    if not len(mono):
        raise InvalidInput("the recording has no samples", "input")
    if not np.isfinite(mono).all():
        raise InvalidInput("the recording has samples that are not finite", "input")
    return _fitted(_resampled(mono, rate, sample_rate), samples)


def _read_mono(file: Any, frames: int) -> NDArray[np.float64]:
    """At most ``frames``, the mean of all channels: float64 ``[n]`` from -1 to 1."""
    blocks = file.blocks(
        max(1, _AT_ONCE // file.channels), frames=frames, dtype="float64", always_2d=True
    )
    return np.concatenate([np.zeros(0), *(block.mean(axis=1) for block in blocks)])


def _check(file: Any, encoded: bytes, form: str | None) -> None:
    """ValueError, or TooLarge, for a recording that is not to be decoded."""
    allowed = _FORMATS if form is None else {form: _FORMATS[form]}
    if not any(file.format in formats for formats in allowed.values()):
        wanted = ", ".join(dict.fromkeys(RECORDINGS.values())) if form is None else form
        raise ValueError(f"it is {file.format}, not {wanted}")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise ValueError(
            f"its sample rate is {file.samplerate} Hz; it must be from {RATES[0]} to {RATES[1]}"
        )
    seconds = file.frames / file.samplerate
    if seconds > MAX_SECONDS:
        raise TooLarge(
            f"the recording lasts {seconds:.0f} s; at most {MAX_SECONDS} s are taken: cut it first",
            "input",
        )
    if file.format in ("WAV", "WAVEX"):
        _refuse_cut_off(encoded)


def _refuse_cut_off(encoded: bytes) -> None:
    """ValueError for a WAV file whose samples end before the length that it announces."""
    position = 12
    while position + 8 <= len(encoded):
        size = int.from_bytes(encoded[position + 4 : position + 8], "little")
        if encoded[position : position + 4] == b"data":
            present = len(encoded) - position - 8
            if present < size < _STREAMED:
                raise ValueError(f"it is cut off: {size} bytes are announced, {present} are there")
            return
        position += 8 + size + size % 2


def _resampled(mono: NDArray[np.float64], rate: int, wanted: int) -> NDArray[np.float64]:
    """``mono`` at the ``wanted`` rate, through a filter that keeps higher frequencies from
    folding back."""
    if rate == wanted:
        return mono
    try:
        import soxr
    except ModuleNotFoundError as error:
        raise MissingExtra(f"soxr (to bring {rate} Hz to {wanted} Hz)", "audio") from error
    resampled: NDArray[np.float64] = soxr.resample(mono, rate, wanted, quality=_QUALITY)
    return resampled


def _fitted(mono: NDArray[np.float64], samples: int) -> NDArray[np.int16]:
    """int16 ``[samples]`` of floats from -1 to 1, cut, or padded with silence at the end."""
    if not np.isfinite(mono[:samples]).all():
        raise InvalidInput("the recording holds numbers that are not finite", "input")
    levels = np.clip(np.rint(mono[:samples] * 2**15), -(2**15), 2**15 - 1)
    fitted = np.zeros(samples, np.int16)
    fitted[: len(levels)] = levels
    return fitted
