from __future__ import annotations

import io
import pickle
import struct
import wave
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delen.bundle.manifest import (
    AudioPreprocessing,
    ImagePreprocessing,
    InputSpec,
    TextPreprocessing,
)
from delen.bundle.media import IMAGES
from delen.engine.inputs import (
    NPY,
    RAW,
    TEXT,
    decode_body,
    decode_json,
    decode_list,
    decode_npy,
    decode_raw,
    decode_text,
    split_batch,
)
from delen.errors import InvalidInput, TooLarge, UnsupportedMediaType

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")

RGB = InputSpec("uint8", (6, 4, 3), ImagePreprocessing("RGB", "bilinear"))
GREY = InputSpec("uint8", (6, 4, 1), ImagePreprocessing("L", "nearest"))
FLOATS = InputSpec("float32", (2, 3), None)
SOUND = InputSpec("int16", (6,), audio=AudioPreprocessing(8000))
WORDS = InputSpec("uint8", (6,), text=TextPreprocessing("utf-8"))
PNG, JPEG, WAV, FLAC = "image/png", "image/jpeg", "audio/wav", "audio/flac"


def encoded(image: Any, form: str = "PNG", **how: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form, **how)
    return buffer.getvalue()


def picture(width: int = 4, height: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def wav(frames: np.ndarray, rate: int = 8000, channels: int = 1) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(frames.astype("<i2").tobytes())
    return buffer.getvalue()


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    decoded = decode_body(encoded(Image.fromarray(picture())), PNG, RGB)
    np.testing.assert_array_equal(decoded, picture())


@pytest.mark.parametrize("size", [(1, 1), (40, 9), (4, 60), (333, 200)])
@pytest.mark.parametrize("spec", [RGB, GREY], ids=["RGB", "L"])
@pytest.mark.parametrize("media_type", IMAGES)
def test_an_image_is_fitted_to_the_model(
    size: tuple[int, int], spec: InputSpec, media_type: str
) -> None:
    image = Image.new("RGB", size, (100, 150, 200))
    decoded = decode_body(encoded(image, IMAGES[media_type]), media_type, spec)
    expected = [100, 150, 200] if spec is RGB else [142]
    assert decoded.shape == spec.shape
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - expected).max() <= 3


@pytest.mark.parametrize("resize", ["nearest", "bilinear", "bicubic"])
def test_the_bundles_filter_resizes(resize: str) -> None:
    spec = InputSpec("uint8", (6, 4, 3), ImagePreprocessing("RGB", resize))
    image = Image.fromarray(picture(9, 11))
    expected = image.resize((4, 6), Image.Resampling[resize.upper()])
    np.testing.assert_array_equal(decode_body(encoded(image), PNG, spec), np.asarray(expected))


def test_a_model_of_tensors_takes_no_images() -> None:
    with pytest.raises(UnsupportedMediaType, match="does not accept images"):
        decode_body(encoded(Image.new("RGB", (4, 6))), PNG, FLOATS)


@pytest.mark.parametrize("contents", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize("media_type", IMAGES)
def test_what_is_no_image_is_refused(contents: bytes, media_type: str) -> None:
    with pytest.raises(InvalidInput, match="image"):
        decode_body(contents, media_type, RGB)


def test_an_image_of_another_format_than_announced_is_refused() -> None:
    with pytest.raises(InvalidInput, match="it is not JPEG"):
        decode_body(encoded(Image.new("RGB", (4, 6))), JPEG, RGB)


GOOD_BODIES = {
    PNG: encoded(Image.fromarray(picture(20, 20))),
    JPEG: encoded(Image.fromarray(picture(20, 20)), "JPEG"),
    NPY: npy(picture()),
    WAV: wav(np.arange(8)),
    TEXT: "Žluťoučký kůň".encode(),
}
TAKERS = {WAV: SOUND, TEXT: WORDS}


@pytest.mark.filterwarnings("ignore::Warning")
@given(
    st.sampled_from(sorted(GOOD_BODIES)),
    st.integers(0, 2000),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_body_is_decoded_or_refused_and_nothing_else(
    media_type: str, cut: int, changes: list[tuple[int, int]]
) -> None:
    body = bytearray(GOOD_BODIES[media_type])
    for place, value in changes:
        body[place % len(body)] = value
    sent = bytes(body[: max(cut, 1)])
    spec = TAKERS.get(media_type, RGB)
    try:
        array = decode_body(sent, media_type, spec)
    except (InvalidInput, TooLarge):
        assert sent != GOOD_BODIES[media_type]
        return
    if media_type == NPY:
        assert array.nbytes < len(sent)
    else:
        assert (array.shape, array.dtype) == (spec.shape, spec.dtype)


def test_an_npy_file_is_its_array() -> None:
    np.testing.assert_array_equal(decode_npy(npy(picture())), picture())


def archive() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, x=picture())
    return buffer.getvalue()


def claiming(shape: str, length: int = 10) -> bytes:
    """An .npy file whose header claims ``shape``, with ``length`` bytes of data."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * length


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x93NUMPY",
        b"not an array",
        b"PK\x03\x04",
        npy(picture())[:-1],
        npy(np.array([object()], dtype=object)),
        pickle.dumps([1, 2]),
        archive(),
        claiming("(10000000000000000,)"),
        claiming("(-1,)"),
        claiming("(True,)", length=1),
        claiming("(0, 100000000000000000000)", length=0),
        claiming("(" + "1," * 100 + ")", length=1),
        claiming("(" + "(" * 500),
        claiming("'x'"),
        claiming("(" + ",".join(["9" * 4300] * 14) + ",)"),
        npy(picture())[:8] + struct.pack("<H", 60_000) + b" " * 60_000 + npy(picture())[10:],
    ],
    ids=lambda raw: f"{len(raw)} bytes",
)
def test_what_is_no_single_array_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="npy") as caught:
        decode_npy(raw)
    assert caught.value.field == "input"


def test_raw_bytes_are_one_sample_or_whole_samples() -> None:
    values = np.arange(12, dtype="<f4").reshape(2, 2, 3)
    np.testing.assert_array_equal(decode_raw(values[0].tobytes(), FLOATS), values[0])
    np.testing.assert_array_equal(decode_raw(values.tobytes(), FLOATS), values)


@pytest.mark.parametrize("length", [0, 1, 23, 25, 36])
def test_raw_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"has {length} bytes; one sample .* has 24"):
        decode_raw(b"\0" * length, FLOATS)


def test_a_raw_batch_is_of_the_largest_size() -> None:
    spec = InputSpec("uint8", (4, 4, 1), sizes=((2, 2),))
    assert decode_raw(bytes(4), spec).shape == (2, 2, 1)
    assert decode_raw(bytes(32), spec).shape == (2, 4, 4, 1)
    for length in (8, 20):
        with pytest.raises(InvalidInput, match=r"multiple of 16: send another batch as \.npy"):
            decode_raw(bytes(length), spec)


def test_a_list_is_read_in_the_models_dtype() -> None:
    assert decode_list([[1, 2.5, 3], [4, 5, 6]], FLOATS).dtype == np.float32
    pixels = decode_list(picture().tolist(), RGB)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, picture())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "must be a nested list, not 3"),
        ("abc", "must be a nested list, not 'abc'"),
        ({"a": 1}, "must be a nested list, not {'a': 1}"),
        (None, "must be a nested list, not null"),
        ([[1, 2], [3]], "ragged"),
        ([], "is empty"),
        ([[], []], "is empty"),
        ([[1, "2"]], "whole numbers only"),
        ([[1, None]], "whole numbers only"),
        ([[True, False]], "whole numbers only"),
        ([[1.5]], "whole numbers only"),
        ([[256]], "outside 0 to 255"),
        ([[-1]], "outside 0 to 255"),
        ([[10**30]], "whole numbers only"),
        ([[float("nan")]], "whole numbers only"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        decode_list(value, RGB)
    assert caught.value.field == "input"


@pytest.mark.parametrize("value", [["a" * 100_000] + [""] * 100_000, [[[[[[1]]]]]], [[1], 2]])
def test_a_list_is_refused_before_numpy_sees_it(
    value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(np, "asarray", None)
    with pytest.raises(InvalidInput) as caught:
        decode_list(value, RGB)
    assert caught.value.field == "input"


@pytest.mark.parametrize("value", [[[float("nan")]], [[float("inf"), 1.0]]])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="not finite"):
        decode_list(value, FLOATS)


nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=20,
)


@given(nested, st.sampled_from([RGB, FLOATS]))
@example([[2**63]], RGB)
@example([[2**63, -1]], FLOATS)
@example([], RGB)
def test_any_json_value_is_read_or_refused(value: object, spec: InputSpec) -> None:
    try:
        array = decode_list(value, spec)
    except InvalidInput:
        return
    assert array.dtype == np.dtype(spec.dtype)


def test_one_more_dimension_is_a_batch() -> None:
    assert split_batch(np.zeros((2, 3)), FLOATS)[1] is False
    samples, is_batch = split_batch(np.arange(12.0).reshape(2, 2, 3), FLOATS)
    assert is_batch
    assert [sample.tolist() for sample in samples] == [
        [[0, 1, 2], [3, 4, 5]],
        [[6, 7, 8], [9, 10, 11]],
    ]
    with pytest.raises(InvalidInput, match="the batch is empty"):
        split_batch(np.zeros((0, 2, 3)), FLOATS)


@pytest.mark.parametrize(
    "array", [np.empty((10**12, 0, 3), np.float32), np.empty((10**12, 2, 3), "V0")]
)
def test_an_array_that_holds_nothing_is_no_batch(array: np.ndarray) -> None:
    samples, is_batch = split_batch(array, FLOATS)
    assert (len(samples), is_batch) == (1, False)


@pytest.mark.parametrize("media_type", [RAW, NPY])
def test_bodies_are_decoded_by_their_media_type(media_type: str) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    body = values.tobytes() if media_type == RAW else npy(values)
    np.testing.assert_array_equal(decode_body(body, media_type, FLOATS), values)


@pytest.mark.parametrize(
    ("length", "expected"),
    [(4, [0, 1, 2, 3, 0, 0]), (6, [0, 1, 2, 3, 4, 5]), (9, [0, 1, 2, 3, 4, 5])],
)
def test_a_recording_is_cut_or_padded_to_the_models_length(
    length: int, expected: list[int]
) -> None:
    decoded = decode_body(wav(np.arange(length)), WAV, SOUND)
    assert decoded.dtype == np.int16
    assert decoded.tolist() == expected


def test_a_recording_of_another_format_than_announced_is_refused() -> None:
    with pytest.raises(InvalidInput, match="it is WAV, not FLAC"):
        decode_body(wav(np.arange(6)), FLAC, SOUND)


@pytest.mark.parametrize(
    "raw", [b"", b"RIFF", b"RIFF\x04\0\0\0WAVE", wav(np.arange(6))[:-3], wav(np.arange(0))]
)
def test_what_is_no_whole_recording_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="the recording") as caught:
        decode_body(raw, WAV, SOUND)
    assert caught.value.field == "input"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("hi", b"hi\0\0\0\0"), ("abcdefgh", b"abcdef"), ("abcdeř", b"abcde\0"), ("\0", b"\0" * 6)],
)
def test_a_text_is_cut_or_padded_to_the_models_length(text: str, expected: bytes) -> None:
    for form in (text, text.encode()):
        decoded = decode_text(form, WORDS)
        assert (decoded.dtype, decoded.tobytes()) == (np.uint8, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "the text is empty"),
        ("", "the text is empty"),
        (b"caf\xe9", "the text is not UTF-8"),
        ("\ud800", "the text is not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        decode_text(text, WORDS)
    assert caught.value.field == "input"


def test_texts_may_come_in_json() -> None:
    assert decode_json("hi", WORDS).tobytes() == b"hi\0\0\0\0"
    samples, is_batch = split_batch(decode_json(["hi", "you"], WORDS), WORDS)
    assert is_batch
    assert [sample.tobytes() for sample in samples] == [b"hi\0\0\0\0", b"you\0\0\0"]
    assert decode_json([104, 105, 0, 0, 0, 0], WORDS).tobytes() == b"hi\0\0\0\0"


@pytest.mark.parametrize("value", [["hi", 3], ["hi", ["you"]], [["hi"]], {"text": "hi"}, None])
def test_other_json_is_no_text(value: object) -> None:
    with pytest.raises(InvalidInput):
        decode_json(value, WORDS)


@pytest.mark.parametrize("value", ["hi", ["hi"]])
def test_a_model_of_other_inputs_takes_no_text_in_json(value: object) -> None:
    with pytest.raises(InvalidInput, match=r"must be a nested list|whole numbers only"):
        decode_json(value, RGB)


@pytest.mark.parametrize(
    ("media_type", "spec", "message"),
    [
        (PNG, SOUND, "does not accept images; it accepts recordings, .npy arrays, raw bytes"),
        (
            WAV,
            WORDS,
            "does not accept recordings; it accepts texts, .npy arrays, raw bytes",
        ),
        (TEXT, RGB, "does not accept texts; it accepts images, .npy arrays, raw bytes"),
        (TEXT, FLOATS, "does not accept texts; it accepts .npy arrays, raw bytes"),
    ],
)
def test_a_model_says_what_it_takes_instead(media_type: str, spec: InputSpec, message: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=message):
        decode_body(GOOD_BODIES[media_type], media_type, spec)
