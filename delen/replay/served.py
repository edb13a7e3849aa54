"""What a replay needs to know of a served model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from delen.bundle.manifest import Manifest
from delen.errors import DelenError, ModelNotFound
from delen.simulate.trace import Trace


@dataclass(frozen=True, slots=True)
class Served:
    """A model: ``dtype`` and ``shape`` of one input, its classes, and how many exits it has.

    ``labels`` are the names of the classes, None if they have none. ``state`` is ``ready`` once it
    answers.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    classes: int
    labels: tuple[str, ...] | None
    exits: int
    state: str = "ready"

    @classmethod
    def of_manifest(cls, manifest: Manifest) -> Served:
        return cls(
            name=manifest.name,
            dtype=manifest.input.dtype,
            shape=manifest.input.shape,
            classes=manifest.classes,
            labels=manifest.labels,
            exits=len(manifest.exits),
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Served:
        """From one model of ``GET /v1/models``."""
        labels = document["labels"]
        return cls(
            name=document["name"],
            dtype=document["input"]["dtype"],
            shape=tuple(document["input"]["shape"]),
            classes=document["classes"],
            labels=None if labels is None else tuple(labels),
            exits=len(document["exits"]),
            state=document["state"],
        )


def asked_of(trace: Trace, served: Iterable[Served], default: str) -> dict[str, Served]:
    """The models of ``trace`` by name; requests that name none go to ``default``.

    ModelNotFound for a model that is not served, DelenError for one that is not ready.
    """
    known = {model.name: model for model in served}
    names = sorted({arrival.model or default for arrival in trace})
    for name in names:
        if name not in known:
            raise ModelNotFound(
                f"the trace asks for the model {name!r}; served: {', '.join(sorted(known))}"
            )
        if known[name].state != "ready":
            raise DelenError(
                f"the model {name!r} is {known[name].state}; load it with: delen models --load "
                f"{name}"
            )
    return {name: known[name] for name in names}


def default_of(documents: Sequence[Mapping[str, Any]]) -> str:
    """The name of the daemon's default model, from what ``GET /v1/models`` lists."""
    for document in documents:
        if document["default"]:
            return str(document["name"])
    raise ModelNotFound("the daemon has no default model")
