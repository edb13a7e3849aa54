"""One recording, however it is stored, is one sample."""

from __future__ import annotations

import io
import struct
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.recordings import decode_recording
from delen.errors import InvalidInput, MissingExtra, TooLarge

soundfile = pytest.importorskip("soundfile", reason="recordings need soundfile: delen[audio]")

FRAMES = np.array([0, -32768, 32767, 5, -6, 700], np.int16)
PCM = bytes.fromhex("0100000000001000800000aa00389b71")
"""The format of PCM samples in WAVE_FORMAT_EXTENSIBLE."""


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body


def wav(
    frames: np.ndarray = FRAMES,
    rate: int = 8000,
    tag: int = 1,
    before: bytes = b"",
    announced: int | None = None,
) -> bytes:
    """Written here, since libraries do not write what is odd."""
    channels = 1 if frames.ndim == 1 else frames.shape[1]
    width = frames.itemsize
    form = struct.pack(
        "<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, 8 * width
    )
    if tag == 0xFFFE:
        form += struct.pack("<HHI", 22, 8 * width, 0) + PCM
    body = b"WAVE" + chunk(b"fmt ", form) + before + chunk(b"data", frames.tobytes(), announced)
    return chunk(b"RIFF", body, announced)


def written(frames: np.ndarray, rate: int = 8000, **how: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, frames, rate, **how)
    return buffer.getvalue()


def tone(hertz: float, seconds: float = 0.5, rate: int = 8000) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return (20_000 * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


@pytest.mark.parametrize(
    "encoded",
    [
        wav(),
        wav(tag=0xFFFE),
        wav(announced=0xFFFFFFFF),
        wav(tag=0xFFFE, announced=0xFFFFFFFF),
        wav(announced=0x7FFFFFFF - 36),
        wav(before=chunk(b"LIST", b"INFOICMT\4\0\0\0odd\0")),
        written(FRAMES, format="FLAC"),
        written(FRAMES, format="RF64"),
        written(FRAMES, format="WAV", subtype="PCM_24"),
        written(FRAMES.astype(np.int32) << 16, format="WAV", subtype="PCM_32"),
        written(FRAMES / 2**15, format="WAV", subtype="FLOAT"),
        written(FRAMES / 2**15, format="WAV", subtype="DOUBLE"),
        written(np.stack([FRAMES] * 6, axis=1), format="WAV"),
        written(np.stack([FRAMES] * 8, axis=1), format="FLAC"),
    ],
    ids=[
        "PCM", "extensible", "streamed", "streamed extensible", "streamed by arecord", "comment",
        "FLAC", "RF64", "24", "32", "float", "double", "six channels", "FLAC of eight",
    ],
)  # fmt: skip
def test_a_recording_comes_as_it_is(encoded: bytes) -> None:
    decoded = decode_recording(encoded, 8000, len(FRAMES))
    assert decoded.dtype == np.int16
    assert decoded.tolist() == FRAMES.tolist()


def test_8_bits_are_centred_and_scaled() -> None:
    eight = wav(np.array([128, 0, 255], np.uint8))
    assert decode_recording(eight, 8000, 3).tolist() == [0, -32768, 32512]


def test_floats_beyond_full_scale_are_clipped() -> None:
    loud = written(np.array([2.0, -3.0, 0.5]), format="WAV", subtype="FLOAT")
    assert decode_recording(loud, 8000, 3).tolist() == [32767, -32768, 16384]


def test_channels_are_averaged() -> None:
    both = np.array([[100, 200], [32767, 32767], [-32768, -32768]], np.int16)
    assert decode_recording(wav(both), 8000, 3).tolist() == [150, 32767, -32768]


def test_a_recording_is_cut_and_padded_at_its_end() -> None:
    assert decode_recording(wav(), 8000, 2).tolist() == FRAMES[:2].tolist()
    assert decode_recording(wav(), 8000, 8).tolist() == [*FRAMES.tolist(), 0, 0]


@pytest.mark.parametrize("form", ["VORBIS", "OPUS"])
def test_ogg_is_near_what_was_recorded(form: str) -> None:
    encoded = written(tone(440), format="OGG", subtype=form)
    decoded = decode_recording(encoded, 8000, 4000)[500:-500].astype(float)
    assert np.corrcoef(decoded, tone(440)[500:-500])[0, 1] > 0.99


@pytest.mark.parametrize(("rate", "wanted"), [(16000, 8000), (8000, 16000), (44100, 16000)])
def test_resampling_keeps_a_tone(rate: int, wanted: int) -> None:
    expected = tone(440, 0.5, wanted)
    decoded = decode_recording(wav(tone(440, 0.5, rate), rate), wanted, len(expected))
    middle = slice(len(expected) // 4, -len(expected) // 4)
    error = decoded[middle].astype(float) - expected[middle]
    assert np.sqrt((error**2).mean()) < 20  # of 20,000


def test_resampling_does_not_fold_high_tones_back() -> None:
    decoded = decode_recording(wav(tone(6000, 0.5, 16000), 16000), 8000, 4000)
    assert np.abs(decoded[200:-200]).max() < 200


def test_resampling_clips_instead_of_wrapping_round() -> None:
    square = np.repeat(np.array([32767, -32768] * 50, np.int16), 40)
    decoded = decode_recording(wav(square), 16000, 2 * len(square))
    assert np.abs(decoded[::2].astype(int) - square).max() < 2000  # wrapped round: 65,535


@pytest.mark.parametrize(("rate", "wanted"), [(44100, 8000), (8000, 16000), (48000, 44100)])
def test_only_as_much_is_decoded_as_is_needed_and_it_is_the_same(rate: int, wanted: int) -> None:
    noise = np.random.default_rng(0).integers(-20000, 20000, 4 * rate).astype(np.int16)
    whole = decode_recording(wav(noise, rate), wanted, 4 * wanted)
    start = decode_recording(wav(noise, rate), wanted, wanted // 2)
    assert np.abs(start.astype(int) - whole[: wanted // 2]).max() <= 1


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        (b"", "does not decode"),
        (b"RIFF", "does not decode"),
        (b"\xff\xfb\x90" * 200, "does not decode"),
        (wav()[:-5], "cut off: 12 bytes are announced, 7 are there"),
        (written(tone(440), format="FLAC")[:3000], "does not decode"),
        (written(tone(440), format="OGG")[:3000], "no samples"),
        (wav(FRAMES[:0]), "no samples"),
        (written(FRAMES, format="AIFF"), "it is AIFF, not WAV, FLAC, OGG"),
        (wav(before=chunk(b"junk", b"") * 200_000), "does not decode"),
        (wav(rate=0), "does not decode"),
        (wav(rate=999), "sample rate is 999 Hz; it must be from 1000 to 768000"),
        (wav(rate=2**31 - 1), "sample rate is 2147483647 Hz"),
        (written(np.array([0.1, np.nan]), format="WAV", subtype="FLOAT"), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused_with_the_reason(encoded: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as caught:
        decode_recording(encoded, 8000, 8)
    assert caught.value.field == "input"


def test_ten_hours_are_refused() -> None:
    hours = written(np.zeros(36_000 * 1000, np.int16), 1000, format="FLAC")
    with pytest.raises(TooLarge, match="lasts 36000 s; at most 600 s are taken"):
        decode_recording(hours, 8000, 8)


def test_the_announced_format_alone_is_taken() -> None:
    assert len(decode_recording(wav(), 8000, 6, "WAV")) == 6
    with pytest.raises(InvalidInput, match="it is WAV, not FLAC"):
        decode_recording(wav(), 8000, 6, "FLAC")


@pytest.mark.parametrize("package", ["soundfile", "soxr"])
def test_without_the_extra_it_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} .*delen\[audio\]"):
        decode_recording(wav(rate=16000), 8000, 8)


@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(wav(np.arange(50, dtype=np.int16)))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 43))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_recording(bytes(raw[: data.draw(st.integers(0, len(raw)))]), 8000, 60)
    except InvalidInput:
        return
    assert (decoded.dtype, decoded.shape) == (np.int16, (60,))
