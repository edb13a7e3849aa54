"""Every file that a build reads is served as the tensor that the build had, to the bit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import delen
from delen.bundle.manifest import MANIFEST
from delen.bundle.media import recognise
from multiexit_models.data.audio import read_audio_folder
from multiexit_models.data.dataset import Dataset
from multiexit_models.data.images import read_image_folder
from multiexit_models.data.reading import Reading
from multiexit_models.data.splits import PARTS

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon, Launcher

Image = pytest.importorskip("PIL.Image", reason="images need Pillow: delen[daemon]")
soundfile = pytest.importorskip("soundfile", reason="recordings need soundfile: delen[audio]")

FOLDERS = ("train", "val", "calibration", "test")


def scene(seed: int, side: int = 90) -> np.ndarray:
    """A smooth picture of 16 bits, ``[side, side + 30]``."""
    y, x = np.mgrid[0:side, 0 : side + 30]
    phases = np.random.default_rng(seed).uniform(0, 6, 4)
    waves = np.sin(x / (5 + phases[0]) + phases[1]) + np.cos(y / (4 + phases[2]) + phases[3])
    return ((waves + 2) / 4 * 65_535).astype(np.uint16)


def draw(folder: Path, seed: int) -> None:
    """One picture as cameras, scanners and drawing programs keep it."""
    folder.mkdir(parents=True)
    deep = scene(seed)
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    colour = Image.merge("RGB", (grey, grey.rotate(180), grey.transpose(0)))
    for ending in ("jpg", "png", "webp", "bmp", "gif", "tif", "ppm"):
        colour.save(folder / f"colour.{ending}")
    for orientation in (3, 6, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        colour.save(folder / f"turned{orientation}.jpg", exif=exif)
        colour.save(folder / f"turned{orientation}.png", exif=exif)
    Image.fromarray(scene(seed, 1200)).convert("L").save(folder / "large.jpg")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(deep).save(folder / "deep.tif")
    Image.fromarray((deep / 65_535).astype(np.float32)).save(folder / "float.tif")
    colour.convert("CMYK").save(folder / "print.jpg")
    colour.convert("P").save(folder / "palette.png")
    layer = colour.copy()
    layer.putalpha(grey)
    layer.save(folder / "layer.png")
    layer.save(folder / "layer.webp", lossless=True)
    frames = [grey, grey.rotate(90)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])


def record(folder: Path, seed: int) -> None:
    """One sound as recorders, phones and editors keep it."""
    folder.mkdir(parents=True)
    for rate in (8000, 16000, 44100):
        sound = np.random.default_rng(seed).normal(0, 0.2, rate // 50)
        stereo = np.stack([sound, sound[::-1]], axis=1)
        for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT"):
            soundfile.write(folder / f"{rate} {subtype}.wav", stereo, rate, subtype=subtype)
        soundfile.write(folder / f"{rate} ex.wav", sound, rate, format="WAVEX", subtype="PCM_16")
        soundfile.write(folder / f"{rate}.flac", stereo, rate)
        soundfile.write(folder / f"{rate}.ogg", sound, rate)
        streamed = bytearray((folder / f"{rate} PCM_16.wav").read_bytes())
        streamed[4:8] = streamed[40:44] = b"\xff" * 4
        (folder / f"{rate} streamed.wav").write_bytes(streamed)


def in_parts(folder: Path, write: Callable[[Path, int], None]) -> Path:
    for seed, part in enumerate(FOLDERS):
        for label in ("a", "b"):
            write(folder / part / label, seed)
    return folder


def files_of(folder: Path, part: str, data: Dataset) -> Iterator[tuple[Path, np.ndarray]]:
    """Each file of a part, in the order in which the build reads them, with its tensor."""
    place = PARTS[FOLDERS.index(part)]
    files = [file for label in ("a", "b") for file in sorted((folder / part / label).iterdir())]
    inputs = getattr(data, place).inputs
    assert len(files) == len(inputs)
    return zip(files, inputs, strict=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: Any) -> Path:
    return in_parts(tmp_path_factory.mktemp("photos"), draw)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: Any) -> Path:
    return in_parts(tmp_path_factory.mktemp("sounds"), record)


@pytest.fixture(scope="module")
def images(photos: Path) -> Dataset:
    return read_image_folder(photos, Reading(shape=(4, 4, 1), max_unreadable=0))


@pytest.fixture(scope="module")
def recordings(sounds: Path) -> Dataset:
    how = Reading(shape=(16,), sample_rate=8000, max_unreadable=0)
    return read_audio_folder(sounds, how)


@pytest.fixture(scope="module")
def daemon(
    launcher: Launcher,
    write_bundle: Callable[..., Path],
    images: Dataset,
    recordings: Dataset,
    tmp_path_factory: Any,
) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(folder / "photos", name="photos", input=images.input)
    write_bundle(folder / "sounds", name="sounds", input=recordings.input)
    older = write_bundle(folder / "older", name="older", input=images.input) / MANIFEST
    document = json.loads(older.read_text())
    document["schema"] = 2
    document["input"]["image"] = {"mode": "L", "resize": "bilinear"}
    older.write_text(json.dumps(document))
    daemon = launcher.start(
        {"models": {"path": str(folder), "load": ["photos", "sounds", "older"]}}
    )
    yield daemon
    assert daemon.terminate() == 0
    assert "Traceback" not in daemon.log(), daemon.log()


def probabilities(daemon: Daemon, body: bytes, content_type: str, model: str) -> list[float]:
    answer = daemon.api.post(
        f"/v1/models/{model}/infer",
        body=body,
        content_type=content_type,
        query={"probabilities": "true"},
    )
    assert answer.status == 200, answer.body
    return list(answer.json()["probabilities"])


@pytest.mark.parametrize("part", FOLDERS)
def test_every_image_is_served_as_it_was_trained_on(
    daemon: Daemon, photos: Path, images: Dataset, part: str
) -> None:
    for file, tensor in files_of(photos, part, images):
        contents = file.read_bytes()
        served = probabilities(daemon, contents, recognise(contents) or "", "photos")
        built = probabilities(daemon, tensor.tobytes(), "application/octet-stream", "photos")
        assert served == built, file.name


@pytest.mark.parametrize("part", FOLDERS)
def test_every_recording_is_served_as_it_was_trained_on(
    daemon: Daemon, sounds: Path, recordings: Dataset, part: str
) -> None:
    for file, tensor in files_of(sounds, part, recordings):
        contents = file.read_bytes()
        served = probabilities(daemon, contents, recognise(contents) or "", "sounds")
        built = probabilities(daemon, tensor.tobytes(), "application/octet-stream", "sounds")
        assert served == built, file.name


def test_a_path_its_bytes_and_the_opened_image_are_one_input(
    daemon: Daemon, photos: Path, images: Dataset
) -> None:
    with delen.Client(daemon.url) as client:
        for file, _ in files_of(photos, "train", images):
            expected = client.infer(file, model="photos").probabilities
            sent = client.infer(file.read_bytes(), model="photos").probabilities
            np.testing.assert_array_equal(sent, expected)
            with Image.open(file) as image:
                opened = client.infer(image, model="photos").probabilities
            # The app decodes a large JPEG whole, the daemon at a fraction of its size.
            difference = 0.1 if file.suffix == ".jpg" else 0
            np.testing.assert_allclose(opened, expected, rtol=0, atol=difference, err_msg=file.name)


def test_an_older_bundle_is_served_as_it_was_built(daemon: Daemon, photos: Path) -> None:
    """Schema 2 knew no orientation: its build read pictures as they were stored."""
    turned = photos / "train" / "a" / "turned3.png"
    pixels = np.asarray(Image.open(turned).convert("L").resize((4, 4), Image.Resampling.BILINEAR))
    served = probabilities(daemon, turned.read_bytes(), "image/png", "older")
    built = probabilities(daemon, pixels.tobytes(), "application/octet-stream", "older")
    assert served == built
    described = daemon.api.get("/v1/models/older").json()["input"]["image"]
    assert described == {
        "mode": "L", "resize": "bilinear", "orientation": "stored", "background": None
    }  # fmt: skip


def test_too_large_says_the_same_to_a_build_and_to_an_app(daemon: Daemon, tmp_path: Path) -> None:
    """One limit, one sentence."""
    large = tmp_path / "train" / "a" / "0.png"
    for part in FOLDERS:
        for label in ("a", "b"):
            (tmp_path / part / label).mkdir(parents=True)
            side = 14_000 if tmp_path / part / label == large.parent else 8
            Image.new("1", (side, side)).save(tmp_path / part / label / "0.png")
    with pytest.raises(delen.InvalidInput) as caught:
        read_image_folder(tmp_path, Reading(shape=(4, 4, 1)))
    body = large.read_bytes()
    answer = daemon.api.post("/v1/models/photos/infer", body=body, content_type="image/png")
    error = answer.error(413, "too_large")
    assert error["error"] in str(caught.value)
