"""A bundle: the folder with all that serving one network needs, verified when loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from delen.bundle.calibration import Calibration
from delen.bundle.checks import check_manifest
from delen.core.guarantee import HeldOut
from delen.core.plain_file import read_plain
from delen.core.typed_reader import read_file, shown
from delen.core.variant import Size, variant_name
from delen.errors import BundleError

FORMAT = "delen-bundle"
SCHEMA = 3
OLDEST_SCHEMA = 2
MANIFEST = "manifest.json"
PROFILES = "profiles"
WHITE = (255, 255, 255)

Count = Annotated[int, Meta(ge=1)]
Shape = Annotated[tuple[Count, ...], Meta(min_length=1)]
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

    ``sizes`` are the smaller heights and widths that an image may have instead, largest first.
    """

    dtype: str
    shape: Shape
    image: ImagePreprocessing | None = None
    audio: AudioPreprocessing | None = None
    text: TextPreprocessing | None = None
    sizes: tuple[tuple[Count, Count], ...] = ()

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """All shapes that a sample may have, largest first."""
        return (self.shape, *((*size, *self.shape[2:]) for size in self.sizes))

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether a sample may have this shape."""
        return shape == self.shape or (bool(self.sizes) and shape in self.shapes)

    def to_json(self) -> dict[str, Any]:
        """What an app has to know; ``sizes`` stand beside it (``Manifest.all_sizes``)."""
        document = {**asdict(self), "shape": list(self.shape)}
        del document["sizes"]
        return document


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


Exits = Annotated[tuple[ExitSpec, ...], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class ScaledSpec:
    """The network on smaller images: its exits there, whose graphs may be those of the largest size
    where height and width are free in them, and its own calibration table."""

    exits: Exits
    calibration: str


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
    it, or is unknown, and then nothing is guaranteed. ``smaller`` is the network on each of the
    input's smaller ``sizes``; all else is of the largest.
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
    exits: Exits
    calibration: str
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, Any]
    held_out: HeldOut = "known"
    smaller: tuple[ScaledSpec, ...] = ()

    @property
    def all_sizes(self) -> tuple[Size, ...]:
        """The heights and widths that images may have, smallest first; empty where there is one."""
        sizes = self.input.sizes
        return (*reversed(sizes), (self.input.shape[0], self.input.shape[1])) if sizes else ()

    def scaled(self) -> tuple[Manifest, ...]:
        """The manifest of the network at each smaller size, as if it had that size alone."""
        shapes = self.input.shapes[1:]
        return tuple(
            replace(
                self,
                input=replace(self.input, shape=shape, sizes=()),
                exits=scaled.exits,
                calibration=scaled.calibration,
                smaller=(),
            )
            for shape, scaled in zip(shapes, self.smaller, strict=True)
        )

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        document = {"format": FORMAT, "schema": SCHEMA, **asdict(self)}
        if self.held_out == "known":
            del document["held_out"]
        if not self.smaller:
            del document["smaller"], document["input"]["sizes"]
        return json.dumps(document, indent=1) + "\n"


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle at its largest input size. ``digest`` is the SHA-256 of its manifest and so
    of all its files. ``smaller`` is the same bundle at its other sizes, largest first; ``size`` is
    the height and width of this one, None where there is one size alone. A smaller one scales down
    inputs that are ``scaled_from`` the shape of the largest."""

    path: Path
    manifest: Manifest
    calibration: Calibration
    digest: str
    size: Size | None = None
    smaller: tuple[Bundle, ...] = ()
    scaled_from: Shape | None = None

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def largest_shape(self) -> Shape:
        """Of the inputs that it is given."""
        return self.scaled_from or self.manifest.input.shape

    @property
    def variant(self) -> str:
        """The name of the model at this size."""
        return variant_name(self.name, self.size)

    @property
    def sizes(self) -> tuple[Bundle, ...]:
        """The bundle at all its sizes, largest first."""
        return (self, *self.smaller)

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
    scaled = manifest.scaled()
    smaller = tuple(
        Bundle(
            folder,
            each,
            _read_calibration(folder, each),
            digest,
            size,
            scaled_from=manifest.input.shape,
        )
        for each, size in zip(scaled, manifest.input.sizes, strict=True)
    )
    calibration = _read_calibration(folder, manifest)
    for each in smaller:
        if each.calibration.samples != calibration.samples:
            raise BundleError(
                f"{folder / each.manifest.calibration} is of {each.calibration.samples} samples; "
                f"that of the largest size is of {calibration.samples}, which must be the same"
            )
    size = (manifest.input.shape[0], manifest.input.shape[1]) if smaller else None
    return Bundle(folder, manifest, calibration, digest, size, smaller)


def _read_calibration(folder: Path, manifest: Manifest) -> Calibration:
    name = str(folder / manifest.calibration)
    contents = _read_verified(folder, manifest.calibration, manifest.files)
    calibration = Calibration.from_npz(contents, name)
    if calibration.exits != len(manifest.exits):
        raise BundleError(
            f"{name} is of {calibration.exits} exits; the manifest has {len(manifest.exits)}"
        )
    return calibration


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest and its SHA-256, its own contents checked, the files it names not yet."""
    file = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder; a bundle is a folder with a {MANIFEST}")
    try:
        raw = read_plain(file)
        document = json.loads(raw)
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file} cannot be read as JSON: {error}") from error
    return _parse_manifest(document, file), hashlib.sha256(raw).hexdigest()


def _read_verified(folder: Path, name: str, files: Mapping[str, FileEntry]) -> bytes:
    file, entry = folder / name, files[name]
    try:
        contents = read_plain(file)
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
        raise fail(f"the manifest must be an object, not {shown(document)}")
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
    check_manifest(manifest, fail)
    return manifest


def _complete_schema_2(document: dict[str, Any]) -> None:
    """What schema 2 did not say of images: they stayed as stored, and lost their transparency."""
    input = document.get("input")
    if isinstance(input, dict) and isinstance(image := input.get("image"), dict):
        input["image"] = {**image, "orientation": "stored", "background": None}
