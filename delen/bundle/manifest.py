"""A bundle: the folder with all that serving one network needs, verified when loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from delen.bundle.calibration import Calibration
from delen.bundle.confidence import CRITERIA
from delen.core.guarantee import HeldOut
from delen.core.typed_reader import Fail, read_file
from delen.errors import BundleError

FORMAT = "delen-bundle"
SCHEMA = 3
OLDEST_SCHEMA = 2
MANIFEST = "manifest.json"
PROFILES = "profiles"
RUNTIMES = ("onnx", "torch")
IMAGE_MODES = ("RGB", "L")
RESIZES = ("bilinear", "bicubic", "nearest")
ORIENTATIONS = ("exif", "stored")
WHITE = (255, 255, 255)
PRECISIONS = ("fp32", "fp16", "int8")
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Size = Annotated[int, Meta(ge=1)]
Shape = Annotated[tuple[Size, ...], Meta(min_length=1)]
Level = Annotated[int, Meta(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class ImagePreprocessing:
    """How an encoded image becomes the input (``delen.bundle.images``).

    ``mode`` is its colour mode and ``resize`` the filter. With the ``orientation`` exif it is
    turned as its EXIF data say; stored, it stays as it is. What is transparent shows
    ``background`` (red, green, blue), or with None the colour that is stored there.
    """

    mode: str
    resize: str
    orientation: str = "exif"
    background: tuple[Level, Level, Level] | None = WHITE


@dataclass(frozen=True, slots=True)
class AudioPreprocessing:
    """How a recording becomes the input (``delen.bundle.recordings``): 16-bit samples of the mean
    of its channels at ``sample_rate`` (Hz), cut or padded with silence at the end."""

    sample_rate: Annotated[int, Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class TextPreprocessing:
    """How a text becomes the input: its bytes in ``encoding``, cut or padded with zeros."""

    encoding: str


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One sample: ``dtype`` (a numpy name) and ``shape`` without the batch.

    At most one of ``image``, ``audio`` and ``text`` says how an app's file becomes a sample. With
    ``image``, the input is uint8 ``(height, width, channels)``; with ``audio``, int16
    ``(samples,)``; with ``text``, uint8 ``(bytes,)``.
    """

    dtype: str
    shape: Shape
    image: ImagePreprocessing | None = None
    audio: AudioPreprocessing | None = None
    text: TextPreprocessing | None = None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True, slots=True)
class ExitSpec:
    """A segment and the exit at its end.

    ``graph`` is its file: an ONNX graph, or an exported program of torch. ``features`` is the
    shape of the float32 features of one sample that the next segment takes, None after the last.
    ``macs`` are the multiply-adds of a sample that ends here.
    ``temperature`` has divided the logits where the graph computes the confidence.
    ``test_accuracy`` was measured on images used for nothing else, None where there were none.
    """

    graph: str
    features: Shape | None
    macs: int
    temperature: Annotated[float, Meta(gt=0, le=1e6)]
    test_accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of ``manifest.json``.

    ``runtime`` runs its graphs, ``precision`` is that of their weights, in which the calibration
    was measured too. ``criterion`` is the kind of its confidences and thresholds. ``held_out`` says
    whether the weights never saw the calibration part: that is known, was declared by whoever built
    it, or is unknown, and then nothing is guaranteed.
    """

    name: str
    version: str
    description: str
    runtime: str
    precision: str
    criterion: str
    input: InputSpec
    classes: Annotated[int, Meta(ge=2)]
    labels: tuple[str, ...] | None
    max_batch: Annotated[int, Meta(ge=1)]
    exits: Annotated[tuple[ExitSpec, ...], Meta(min_length=1)]
    calibration: str
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]
    held_out: HeldOut = "known"

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        document = {"format": FORMAT, "schema": SCHEMA, **asdict(self)}
        if self.held_out == "known":
            del document["held_out"]
        return json.dumps(document, indent=1) + "\n"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle. ``digest`` is the SHA-256 of its manifest and so of all its files."""

    path: Path
    manifest: Manifest
    calibration: Calibration
    digest: str

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def exits(self) -> tuple[ExitSpec, ...]:
        return self.manifest.exits

    def graph(self, segment: int) -> bytes:
        """The graph of ``segment``, verified once more as it is read."""
        return _read_verified(self.path, self.exits[segment].graph, self.manifest.files)


def load_bundle(path: str | Path) -> Bundle:
    """Read and verify the bundle in the folder ``path``.

    Raises BundleError naming the file and the reason when anything is missing, damaged, foreign
    or newer than this delen understands.
    """
    folder = Path(path)
    manifest, digest = read_manifest(folder)
    for name in manifest.files:
        _read_verified(folder, name, manifest.files)
    calibration_name = str(folder / manifest.calibration)
    contents = _read_verified(folder, manifest.calibration, manifest.files)
    calibration = Calibration.from_npz(contents, calibration_name)
    if calibration.exits != len(manifest.exits):
        raise BundleError(
            f"{calibration_name} is of {calibration.exits} exits; the manifest has "
            f"{len(manifest.exits)}"
        )
    return Bundle(folder, manifest, calibration, digest)


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and its SHA-256, its own contents checked, the files it names not yet."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; a bundle is a folder with a {MANIFEST}")
    try:
        raw = file.read_bytes()
        document = json.loads(raw)
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read as JSON: {error}") from error
    return _parse_manifest(document, file), hashlib.sha256(raw).hexdigest()


def _read_verified(folder: Path, name: str, files: Mapping[str, FileEntry]) -> bytes:
    file, entry = folder / name, files[name]
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error.strerror or error}") from error
    if len(contents) != entry.size:
        raise BundleError(f"{file} has {len(contents)} bytes; the manifest says {entry.size}")
    if hashlib.sha256(contents).hexdigest() != entry.sha256:
        raise BundleError(f"{file} is damaged: its SHA-256 is not the manifest's")
    return contents


def _parse_manifest(document: object, file: Path) -> Manifest:
    def fail(sentence: str) -> BundleError:
        return BundleError(f"{file}: {sentence}")

    if not isinstance(document, dict):
        raise fail(f"the manifest must be an object, not {type(document).__name__}")
    found, schema = document.pop("format", None), document.pop("schema", None)
    if found != FORMAT:
        raise fail(f"format is {found!r}, not {FORMAT!r}: this is not a delen bundle")
    if type(schema) is not int:
        raise fail(f"schema must be a whole number, not {schema!r}")
    if schema > SCHEMA:
        raise fail(
            f"schema {schema} is newer than {SCHEMA}, the newest this delen reads; upgrade it"
        )
    if schema < OLDEST_SCHEMA:
        raise fail(f"schema {schema} is of an older delen; build the bundle again")
    if schema == 2:
        _complete_schema_2(document)
    manifest = read_file(Manifest, document, "the manifest", fail)
    _check_input(manifest.input, fail)
    _check_whole(manifest, fail)
    return manifest


def _complete_schema_2(document: dict[str, Any]) -> None:
    """What schema 2 did not say of images: they stayed as stored, and lost their transparency."""
    input = document.get("input")
    if isinstance(input, dict) and isinstance(image := input.get("image"), dict):
        input["image"] = {**image, "orientation": "stored", "background": None}


def _check_input(input: InputSpec, fail: Fail) -> None:
    if input.dtype not in DTYPES:
        raise fail(f"input.dtype {input.dtype!r} is none of {', '.join(DTYPES)}")
    sample, image = (input.dtype, len(input.shape)), input.image
    if input.audio and sample != ("int16", 1):
        raise fail("input.audio needs int16 [samples]")
    if input.text and (input.text.encoding != "utf-8" or sample != ("uint8", 1)):
        raise fail("input.text needs the encoding utf-8 and uint8 [bytes]")
    if image and (image.mode not in IMAGE_MODES or image.resize not in RESIZES):
        raise fail(
            f"input.image needs a mode of {' or '.join(IMAGE_MODES)} and a resize of "
            f"{', '.join(RESIZES)}, not {image.mode!r} and {image.resize!r}"
        )
    if image and image.orientation not in ORIENTATIONS:
        raise fail(
            f"input.image.orientation {image.orientation!r} is none of {', '.join(ORIENTATIONS)}"
        )
    if image and (sample != ("uint8", 3) or input.shape[2] != len(image.mode)):
        raise fail(f"input.image {image.mode} needs uint8 [height, width, {len(image.mode)}]")
    if sum(way is not None for way in (image, input.audio, input.text)) > 1:
        raise fail("input can have only one of image, audio and text")


def _check_whole(manifest: Manifest, fail: Fail) -> None:
    """Whether the parts of the manifest fit each other."""
    if not FILE_NAME.fullmatch(manifest.name):
        raise fail(f"name {manifest.name!r} must be letters, digits, '.', '_' and '-'")
    for name, choices in (
        ("runtime", RUNTIMES),
        ("precision", PRECISIONS),
        ("criterion", CRITERIA),
    ):
        if (chosen := getattr(manifest, name)) not in choices:
            raise fail(f"{name} {chosen!r} is none of {', '.join(choices)}")
    if manifest.labels is not None and len(manifest.labels) != manifest.classes:
        raise fail(f"labels must be {manifest.classes} strings, one a class")
    for name in manifest.files:
        if not FILE_NAME.fullmatch(name):
            raise fail(f"files names {name!r}, which is not a plain file name")
    for needed in [exit.graph for exit in manifest.exits] + [manifest.calibration]:
        if needed not in manifest.files:
            raise fail(f"{needed!r} is used but not listed under files")
    for index, exit in enumerate(manifest.exits):
        is_last = index == len(manifest.exits) - 1
        if (exit.features is None) != is_last:
            raise fail(f"exits[{index}].features must be null for the last exit and only for it")
        if index and exit.macs <= manifest.exits[index - 1].macs:
            raise fail(f"exits[{index}] needs more macs than the one before")
