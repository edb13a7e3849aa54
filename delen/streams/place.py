"""A place that answers frames, a client or an engine, and the classes that it knows."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Manifest
from delen.core.result import Result
from delen.errors import InvalidInput
from delen.sdk.client import Client
from delen.streams.model import StreamedModel

Classes: TypeAlias = tuple[str | None, ...]
"""The labels in order; None of a class without one."""


@runtime_checkable
class InProcess(Protocol):
    """What a ``delen.Engine`` has."""

    @property
    def manifest(self) -> Manifest: ...
    def infer(self, x: Any, **arguments: Any) -> Any: ...


Answerer: TypeAlias = Client | InProcess


class Place:
    """``client`` and its model, which is described when the first frame comes, and when it has
    become another one."""

    def __init__(self, client: Answerer, field: str) -> None:
        """InvalidInput, which names ``field``, unless ``client`` is one."""
        if not isinstance(client, (Client, InProcess)):
            raise InvalidInput(
                f"{field} is {client!r}; it must be a delen.Client or a delen.Engine", field
            )
        self._client = client
        self._described: tuple[str, str] | None = None
        self._model: StreamedModel
        self.classes: Classes = ()

    def infer(self, frame: Any, **arguments: Any) -> Result:
        """The answer to one frame, scaled to the model; raises what the client raises."""
        if self._described is None:
            self._describe()
        result = self._client.infer(self._model.fit(frame), **arguments)
        if not isinstance(result, Result):
            raise InvalidInput("a frame was a batch; it must be one sample", "frame")
        if self._described != (result.model, result.version):
            self._describe()
        return result

    def _describe(self) -> None:
        client = self._client
        if isinstance(client, Client):
            preview, models = client.plan(), client.models()
            described = next(model for model in models if model["name"] == preview.model)
            name, version = described["name"], described["version"]
            labels, classes = described["labels"], described["classes"]
            self._model = StreamedModel.of(models, preview, client.url)
        else:
            manifest = client.manifest
            name, version = manifest.name, manifest.version
            labels, classes = manifest.labels, manifest.classes
            self._model = StreamedModel(manifest.input.shape, manifest.input.image)
        self.classes = (None,) * classes if labels is None else tuple(labels)
        self._described = name, version


def aligned(
    probabilities: NDArray[np.float64], own: Classes, wanted: Classes
) -> NDArray[np.float64] | None:
    """``probabilities`` of the classes ``own``, in the order of ``wanted``; None where they are
    not the same classes."""
    if own == wanted:
        return probabilities
    if None in own or len(set(own)) < len(own) or set(own) != set(wanted):
        return None
    return probabilities[[own.index(label) for label in wanted]]
