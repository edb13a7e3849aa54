from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delen.bundle.samples import pcm_to_samples, read_wav, text_to_bytes


def wav(frames: np.ndarray, rate: int = 8000, channels: int = 1) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(frames.itemsize)
        out.setframerate(rate)
        out.writeframes(frames.tobytes())
    return file.getvalue()


@given(text=st.text(st.characters(codec="utf-8"), max_size=40), length=st.integers(1, 60))
def test_a_text_is_cut_between_characters_and_padded(text: str, length: int) -> None:
    result = text_to_bytes(text, length)
    assert (result.dtype, result.shape) == (np.uint8, (length,))
    encoded = text.encode()
    if len(encoded) <= length:
        assert result.tobytes() == encoded.ljust(length, b"\0")
    else:
        kept = encoded[:length].decode("utf-8", "ignore").encode()
        assert result.tobytes() == kept.ljust(length, b"\0")


def test_characters_of_several_bytes_are_kept_whole() -> None:
    assert text_to_bytes("Dělen", 2).tobytes() == b"D\0"
    assert text_to_bytes("Dělen", 3).tobytes() == "Dě".encode()


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        text_to_bytes("\ud800", 8)


def test_recordings_are_cut_and_padded_at_the_end() -> None:
    frames = np.array([1, 2, 3], np.int16)
    assert pcm_to_samples(frames, 2).tolist() == [1, 2]
    assert pcm_to_samples(frames, 5).tolist() == [1, 2, 3, 0, 0]
    assert pcm_to_samples(frames, 5).dtype == np.int16


def test_wav_of_16_bits_comes_as_it_is() -> None:
    frames = np.array([0, -32768, 32767, 5], np.int16)
    read, rate = read_wav(wav(frames, 16000))
    assert (read.dtype, rate) == (np.int16, 16000)
    np.testing.assert_array_equal(read, frames)


def test_wav_of_8_bits_is_centred_and_scaled() -> None:
    assert read_wav(wav(np.array([128, 0, 255], np.uint8)))[0].tolist() == [0, -32768, 32512]


def test_two_channels_are_averaged() -> None:
    both = np.array([[100, 200], [32767, 32767], [-32768, -32768]], np.int16)
    assert read_wav(wav(both, channels=2))[0].tolist() == [150, 32767, -32768]


GOOD = wav(np.arange(50, dtype=np.int16))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not a WAV file"),
        (b"RIFF", "not a WAV file"),
        (b"\xff\xfb\x90" * 200, "not a WAV file"),
        (GOOD[:-10], "cut off: 50 samples are announced, 45 are there"),
        (wav(np.zeros(0, np.int16)), "no samples"),
        (wav(np.zeros((4, 3), np.int16), channels=3), "3 channels of 16 bits"),
        (wav(np.zeros(4, np.int32)), "1 channels of 32 bits"),
        (GOOD[:12] + b"junk\0\0\0\0" * 2000 + GOOD[12:], "more than 1000 chunks"),
        (GOOD[:20] + b"\x03\x00" + GOOD[22:], "unknown format: 3"),
        (GOOD[:24] + bytes(4) + GOOD[28:], "sample rate is 0 Hz"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_wav(raw)


@given(st.data())
def test_damage_raises_nothing_else(data: st.DataObject) -> None:
    raw = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, 43))] = data.draw(st.integers(0, 255))
    try:
        frames, rate = read_wav(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except ValueError:
        return
    assert frames.dtype == np.int16
    assert rate > 0
