"""Models and the daemon as they are described."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, UnsetType, field

from delen.core.guarantee import HeldOut
from delen.core.variant import Size
from delen.wire.answers import Guarantee
from delen.wire.message import Megabytes, Message, about


class ImageInput(Message, frozen=True):
    mode: str
    resize: str
    orientation: Annotated[str, about("exif: turned as its EXIF data say; stored: as it is")]
    background: Annotated[
        tuple[int, int, int] | None,
        about("red, green, blue behind what is transparent; null: the colour stored there"),
    ]


class AudioInput(Message, frozen=True):
    sample_rate: int


class TextInput(Message, frozen=True):
    encoding: str


class Input(Message, frozen=True):
    """One sample, and how a file becomes it."""

    dtype: str
    shape: tuple[int, ...]
    image: ImageInput | None
    audio: AudioInput | None
    text: TextInput | None


class Exit(Message, frozen=True):
    exit: int
    macs: Annotated[int, about("multiply-adds of a sample that ends here")]
    test_accuracy: float | None


class Metering(Message, frozen=True):
    """How the profile's energies were measured."""

    source: str
    scope: str
    idle_watts: float = field(name="idle_w")
    blocks: int
    block_seconds: float = field(name="block_s")


class ProfileSummary(Message, frozen=True):
    """The profile that predictions are made from."""

    created: str
    quick: bool
    rough: Annotated[bool, about("conservative at some size, until a quick one is measured")]
    busy: Annotated[
        bool | None,
        about("other programs took processor time while it was measured; null: unknown"),
    ]
    device: str
    slowdown: float
    energy: Metering | None
    stale: Annotated[str | None, about("why it should be measured again")]


class CalibrationSummary(Message, frozen=True):
    """The data behind the guarantee."""

    samples: int
    groups: Annotated[int | None, about("null: every sample is independent of the others")]
    highest_floor: Annotated[
        float, about("of min_accuracy, that so many could certify without an error")
    ]


class Segment(Message, frozen=True):
    segment: int
    state: str
    memory: Megabytes = field(name="memory_mb")
    jobs: int


class Memory(Message, frozen=True):
    """A model's segments, and all models' memory."""

    segments: tuple[Segment, ...]
    resident: Megabytes = field(name="resident_mb")
    taken: Megabytes = field(name="all_models_mb")
    cap: Megabytes = field(name="cap_mb")
    kind: Literal["estimated"] = "estimated"


class Model(Message, frozen=True, kw_only=True):
    """A model that the daemon knows. What is known of loaded models alone is left out of others."""

    name: str
    version: str
    description: str
    default: bool
    state: str
    problem: str | None
    input: Input
    classes: int
    labels: tuple[str, ...] | None
    max_batch: int
    exits: tuple[Exit, ...]
    sizes: Annotated[
        tuple[Size, ...] | UnsetType,
        about("height, width of all sizes that an image may have, smallest first, if several"),
    ] = UNSET
    held_out: Annotated[
        HeldOut,
        about(
            "whether the weights never saw the calibration data: that is known, was declared, or "
            "is unknown, and then no floor is guaranteed"
        ),
    ]
    profile: ProfileSummary | UnsetType = UNSET
    calibration: CalibrationSummary | UnsetType = UNSET
    guarantee: Guarantee | UnsetType = UNSET
    memory: Memory | UnsetType = UNSET


class Models(Message, frozen=True):
    models: tuple[Model, ...]


class Health(Message, frozen=True):
    """``status`` is ok, degraded (a model keeps failing) or failing (a thread has died, or hangs);
    ``problems`` says what is wrong."""

    status: str
    version: str
    problems: tuple[str, ...] = ()


class Ready(Message, frozen=True):
    """``device`` is null until the default model is loaded, where models are loaded on demand.
    ``problems`` name the models that hang or keep failing."""

    status: str
    device: dict[str, Any] | None
    problems: tuple[str, ...] = ()
