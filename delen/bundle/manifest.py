"""A bundle: the folder with all that serving one network needs, verified when loaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from delen.bundle.calibration import Calibration
from delen.bundle.confidence import CRITERIA
from delen.core.strict_reader import Fields
from delen.errors import BundleError

FORMAT = "delen-bundle"
SCHEMA = 2
MANIFEST = "manifest.json"
PROFILES = "profiles"
RUNTIMES = ("onnx", "torch")
PRECISIONS = ("fp32", "fp16", "int8")
DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class ImagePreprocessing:
    """How an encoded image becomes the input: its colour mode and the filter that resizes it."""

    mode: str
    resize: str


@dataclass(frozen=True, slots=True)
class AudioPreprocessing:
    """How a recording becomes the input: mono 16-bit samples at ``sample_rate`` (Hz), cut or
    padded with silence at the end."""

    sample_rate: int


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
    shape: tuple[int, ...]
    image: ImagePreprocessing | None = None
    audio: AudioPreprocessing | None = None
    text: TextPreprocessing | None = None

    def to_json(self) -> dict[str, Any]:
        ways = {"image": self.image, "audio": self.audio, "text": self.text}
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            **{name: None if way is None else asdict(way) for name, way in ways.items()},
        }


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
    features: tuple[int, ...] | None
    macs: int
    temperature: float
    test_accuracy: float | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The contents of ``manifest.json``.

    ``runtime`` runs its graphs, ``precision`` is that of their weights, in which the calibration
    was measured too. ``criterion`` is the kind of its confidences and thresholds.
    """

    name: str
    version: str
    description: str
    runtime: str
    precision: str
    criterion: str
    input: InputSpec
    classes: int
    labels: tuple[str, ...] | None
    max_batch: int
    exits: tuple[ExitSpec, ...]
    calibration: str
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        document = {
            "format": FORMAT,
            "schema": SCHEMA,
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "runtime": self.runtime,
            "precision": self.precision,
            "criterion": self.criterion,
            "input": self.input.to_json(),
            "classes": self.classes,
            "labels": None if self.labels is None else list(self.labels),
            "max_batch": self.max_batch,
            "exits": [
                {
                    "graph": exit.graph,
                    "features": None if exit.features is None else list(exit.features),
                    "macs": exit.macs,
                    "temperature": exit.temperature,
                    "test_accuracy": exit.test_accuracy,
                }
                for exit in self.exits
            ],
            "calibration": self.calibration,
            "files": {
                name: {"sha256": entry.sha256, "size": entry.size}
                for name, entry in self.files.items()
            },
            "provenance": dict(self.provenance),
        }
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

    root = Fields(document, "the manifest", fail)
    if (found := root.text("format", default="none")) != FORMAT:
        raise fail(f"format is {found!r}, not {FORMAT!r}: this is not a delen bundle")
    schema = root.integer("schema")
    if schema > SCHEMA:
        raise fail(
            f"schema {schema} is newer than {SCHEMA}, the newest this delen reads; upgrade it"
        )
    if schema < SCHEMA:
        raise fail(f"schema {schema} is of an older delen; build the bundle again")
    labels = root.array("labels", default=None)
    manifest = Manifest(
        name=root.text("name"),
        version=root.text("version"),
        description=root.text("description"),
        runtime=_parse_choice(root, "runtime", RUNTIMES, fail),
        precision=_parse_choice(root, "precision", PRECISIONS, fail),
        criterion=_parse_choice(root, "criterion", CRITERIA, fail),
        input=_parse_input(root.child("input"), fail),
        classes=root.integer("classes"),
        labels=None if labels is None else tuple(labels),
        max_batch=root.integer("max_batch"),
        exits=tuple(_parse_exit(fields, fail) for fields in root.children("exits")),
        calibration=root.text("calibration"),
        files={
            name: _parse_file(Fields(entry, f"files[{name!r}]", fail), fail)
            for name, entry in root.mapping("files").items()
        },
        provenance=root.mapping("provenance"),
    )
    root.finish()
    _check_whole(manifest, fail)
    return manifest


def _parse_choice(fields: Fields, name: str, choices: tuple[str, ...], fail: Any) -> str:
    value: str = fields.text(name)
    if value not in choices:
        raise fail(f"{name} {value!r} is none of {', '.join(choices)}")
    return value


def _parse_shape(values: list[Any], what: str, fail: Any) -> tuple[int, ...]:
    if not values or any(type(size) is not int or size < 1 for size in values):
        raise fail(f"{what} must be a list of whole numbers above 0, not {values!r}")
    return tuple(values)


def _parse_input(fields: Fields, fail: Any) -> InputSpec:
    dtype = fields.text("dtype")
    if dtype not in DTYPES:
        raise fail(f"input.dtype {dtype!r} is none of {', '.join(DTYPES)}")
    shape = _parse_shape(fields.array("shape"), "input.shape", fail)
    image = _parse_image(fields, dtype, shape, fail)
    audio = text = None
    if fields.mapping("audio", default=None) is not None:
        audio_fields = fields.child("audio")
        audio = AudioPreprocessing(audio_fields.integer("sample_rate"))
        audio_fields.finish()
        if audio.sample_rate < 1 or dtype != "int16" or len(shape) != 1:
            raise fail("input.audio needs a sample_rate above 0 and int16 [samples]")
    if fields.mapping("text", default=None) is not None:
        text_fields = fields.child("text")
        text = TextPreprocessing(text_fields.text("encoding"))
        text_fields.finish()
        if text.encoding != "utf-8" or dtype != "uint8" or len(shape) != 1:
            raise fail("input.text needs the encoding utf-8 and uint8 [bytes]")
    fields.finish()
    if sum(way is not None for way in (image, audio, text)) > 1:
        raise fail("input can have only one of image, audio and text")
    return InputSpec(dtype, shape, image, audio, text)


def _parse_image(
    fields: Fields, dtype: str, shape: tuple[int, ...], fail: Any
) -> ImagePreprocessing | None:
    if fields.mapping("image", default=None) is None:
        return None
    image_fields = fields.child("image")
    image = ImagePreprocessing(image_fields.text("mode"), image_fields.text("resize"))
    image_fields.finish()
    if image.mode not in ("RGB", "L") or image.resize not in ("bilinear", "bicubic", "nearest"):
        raise fail(
            "input.image needs a mode of RGB or L and a resize of bilinear, bicubic or "
            f"nearest, not {image.mode!r} and {image.resize!r}"
        )
    if len(shape) != 3 or shape[2] != len(image.mode) or dtype != "uint8":
        raise fail(f"input.image {image.mode} needs uint8 [height, width, {len(image.mode)}]")
    return image


def _parse_exit(fields: Fields, fail: Any) -> ExitSpec:
    features = fields.array("features", default=None)
    exit = ExitSpec(
        graph=fields.text("graph"),
        features=None if features is None else _parse_shape(features, "features", fail),
        macs=fields.integer("macs"),
        temperature=fields.number("temperature"),
        test_accuracy=fields.number("test_accuracy", default=None),
    )
    fields.finish()
    return exit


def _parse_file(fields: Fields, fail: Any) -> FileEntry:
    entry = FileEntry(fields.text("sha256"), fields.integer("size"))
    fields.finish()
    return entry


def _check_whole(manifest: Manifest, fail: Any) -> None:
    """Whether the parts of the manifest fit each other."""
    if not FILE_NAME.fullmatch(manifest.name):
        raise fail(f"name {manifest.name!r} must be letters, digits, '.', '_' and '-'")
    if not manifest.exits:
        raise fail("exits is empty")
    if manifest.classes < 2 or manifest.max_batch < 1:
        raise fail("classes must be at least 2 and max_batch at least 1")
    if manifest.labels is not None and (
        len(manifest.labels) != manifest.classes
        or not all(isinstance(label, str) for label in manifest.labels)
    ):
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
        if exit.temperature <= 0 or (index and exit.macs <= manifest.exits[index - 1].macs):
            raise fail(
                f"exits[{index}] needs a temperature above 0 and more macs than the one before"
            )
