"""A place that answers frames, a client or an engine, and the classes that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Manifest
from delen.core.plan import Preview
from delen.core.result import Result
from delen.errors import InvalidInput
from delen.sdk.async_client import AsyncClient
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
AsyncAnswerer: TypeAlias = AsyncClient | InProcess


@dataclass(frozen=True, slots=True)
class _Described:
    """What is known of a place's model."""

    name: str
    version: str
    classes: Classes
    model: StreamedModel

    @classmethod
    def of(cls, preview: Preview, models: Sequence[Mapping[str, Any]], url: str) -> _Described:
        """As the daemon at ``url`` describes it."""
        found = next(model for model in models if model["name"] == preview.model)
        classes = _classes(found["labels"], found["classes"])
        model = StreamedModel.of(models, preview, url)
        return cls(found["name"], found["version"], classes, model)

    @classmethod
    def of_bundle(cls, manifest: Manifest) -> _Described:
        classes = _classes(manifest.labels, manifest.classes)
        model = StreamedModel(manifest.input.shape, manifest.input.image)
        return cls(manifest.name, manifest.version, classes, model)

    def is_of(self, result: Result) -> bool:
        return (self.name, self.version) == (result.model, result.version)


def _classes(labels: Sequence[str] | None, count: int) -> Classes:
    return (None,) * count if labels is None else tuple(labels)


class _Known:
    """``client`` and its model, which is described when the first frame comes, and when it has
    become another one."""

    _described: _Described | None = None

    def __init__(self, client: object, kind: type[Client] | type[AsyncClient], field: str) -> None:
        """InvalidInput, which names ``field``, unless ``client`` is of its ``kind``, or an
        engine."""
        if not isinstance(client, (kind, InProcess)):
            raise InvalidInput(
                f"{field} is {client!r}; it must be a delen.{kind.__name__} or a delen.Engine",
                field,
            )
        self._is_engine = not isinstance(client, kind)

    @property
    def classes(self) -> Classes:
        """Of the model, once it is described."""
        return () if self._described is None else self._described.classes

    def within(self, seconds: float) -> dict[str, float]:
        """The argument by which an answer is waited for so long; an engine has none."""
        return {} if self._is_engine else {"timeout": seconds}


class Place(_Known):
    """A place that is asked by threads."""

    def __init__(self, client: Answerer, field: str) -> None:
        super().__init__(client, Client, field)
        self._client = client

    def infer(self, frame: Any, **arguments: Any) -> Result:
        """The answer to one frame, scaled to the model; raises what the client raises."""
        described = self._described = self._described or self._describe()
        result = _single(self._client.infer(described.model.fit(frame), **arguments))
        if not described.is_of(result):
            self._described = self._describe()
        return result

    def _describe(self) -> _Described:
        client = self._client
        if isinstance(client, Client):
            return _Described.of(client.plan(), client.models(), client.url)
        return _Described.of_bundle(client.manifest)


class AsyncPlace(_Known):
    """A place that is asked by tasks; an engine answers in a thread."""

    def __init__(self, client: AsyncAnswerer, field: str) -> None:
        super().__init__(client, AsyncClient, field)
        self._client = client

    async def infer(self, frame: Any, **arguments: Any) -> Result:
        """As ``Place.infer``."""
        client = self._client
        described = self._described = self._described or await self._describe()
        content = await asyncio.to_thread(described.model.fit, frame)
        if isinstance(client, AsyncClient):
            result = _single(await client.infer(content, **arguments))
        else:
            result = _single(await asyncio.to_thread(client.infer, content, **arguments))
        if not described.is_of(result):
            self._described = await self._describe()
        return result

    async def _describe(self) -> _Described:
        client = self._client
        if isinstance(client, AsyncClient):
            return _Described.of(await client.plan(), await client.models(), client.url)
        return _Described.of_bundle(client.manifest)


def _single(answer: object) -> Result:
    if not isinstance(answer, Result):
        raise InvalidInput("a frame was a batch; it must be one sample", "frame")
    return answer


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
