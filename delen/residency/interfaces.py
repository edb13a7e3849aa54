"""What residency needs of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from delen.bundle.manifest import Bundle
from delen.residency.lease import ModelResidency


class LoadedModel(Protocol):
    """A model that can be served. ``accuracies`` are the expected ones of its exits."""

    @property
    def bundle(self) -> Bundle: ...
    @property
    def accuracies(self) -> Sequence[float]: ...


M = TypeVar("M", bound=LoadedModel)
M_co = TypeVar("M_co", bound=LoadedModel, covariant=True)
M_contra = TypeVar("M_contra", bound=LoadedModel, contravariant=True)


class OpenBundle(Protocol[M_co]):
    """A verified bundle whose segments are loaded and dropped one by one.

    ``load`` returns once the segment has run. ``complete`` makes the model when the first segment
    is loaded; it returns None where all segments have to be (``is_whole``), for the device has no
    profile of the model, and one is measured.
    """

    @property
    def bundle(self) -> Bundle: ...
    def load(self, segment: int) -> None: ...
    def drop(self, segment: int) -> None: ...
    def complete(self, residency: ModelResidency, is_whole: bool) -> M_co | None: ...


class ModelExecutor(Protocol[M_contra]):
    """What runs the models. It has to know a segment as there only after it is loaded, and as gone
    before it is dropped."""

    def add_model(self, model: M_contra) -> None: ...
    def remove_model(self, name: str) -> int:
        """Accept no more jobs of ``name``, unless some are under way: how many."""

    def keep_resident(self, name: str, depth: int) -> None:
        """Only the first ``depth`` segments of ``name`` are in memory from now on."""

    def end_unavailable(self, name: str) -> None:
        """End the jobs of ``name`` that wait for a segment which cannot be loaded."""
