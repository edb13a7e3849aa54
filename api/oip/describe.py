"""What the protocol says of the server and its models, as messages for any transport."""

from __future__ import annotations

from collections.abc import Iterable

from api.metrics.statistics import Total
from api.oip.query import CLASSES, DATATYPES, INPUT, LOGITS, check_version, output_names
from api.views import Service
from delen.bundle.manifest import InputSpec, Manifest
from delen.core.bounds import DEFAULT_PRIORITY, LOWEST_PRIORITY
from delen.engine.model import Model
from delen.errors import ModelNotFound, NotOffered
from delen.residency.registry import Entry
from delen.wire.oip import (
    BatchStatistics,
    Duration,
    DynamicBatching,
    InferStatistics,
    ModelConfig,
    ModelIndex,
    ModelMetadata,
    ModelReady,
    ModelStatistics,
    ServerLive,
    ServerMetadata,
    ServerReady,
    Statistics,
    TensorConfig,
    TensorMetadata,
)

EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)
SHARED_MEMORY = "system_shared_memory"
_DATA_TYPES = {"BYTES": "TYPE_STRING"}
_STATES = {"ready": "READY", "loading": "LOADING"}


class Description:
    """Describes ``service``. ModelNotFound for a model, or a version, that it does not have."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runtime = service.runtime

    def live(self) -> ServerLive:
        return ServerLive(self._service.health().status != "failing")

    def ready(self) -> ServerReady:
        """Whether requests are accepted: the default model is loaded, or will be on demand."""
        return ServerReady(self.model_ready(self._service.default_model).ready)

    def model_ready(self, model: str, version: str | None = None) -> ModelReady:
        """A model that is not there is not ready."""
        try:
            entry = self._entry(model, version)
        except ModelNotFound:
            return ModelReady(model, False)
        is_coming = self._runtime.store.is_capped and entry.state != "failed"
        is_there = entry.model is not None or is_coming
        is_served = is_there and model not in self._runtime.health.hung_models()
        return ModelReady(model, is_served and not self._runtime.draining)

    def server(self, has_shared_memory: bool) -> ServerMetadata:
        extensions = EXTENSIONS + ((SHARED_MEMORY,) if has_shared_memory else ())
        return ServerMetadata("delen", self._service.version, tuple(sorted(extensions)))

    def model(self, model: str, version: str | None = None) -> ModelMetadata:
        manifest = self._entry(model, version).manifest
        return ModelMetadata(
            manifest.name,
            (manifest.version,),
            _platform(manifest),
            (TensorMetadata(INPUT, DATATYPES[manifest.input.dtype], (-1, *_dims(manifest.input))),),
            tuple(
                TensorMetadata(name, datatype, (-1, size))
                for name, datatype, size in _outputs(manifest)
            ),
        )

    def config(self, model: str, version: str | None = None) -> ModelConfig:
        manifest = self._entry(model, version).manifest
        return ModelConfig(
            manifest.name,
            _platform(manifest),
            "delen",
            manifest.max_batch,
            (
                TensorConfig(
                    INPUT, _data_type(DATATYPES[manifest.input.dtype]), _dims(manifest.input)
                ),
            ),
            tuple(
                TensorConfig(name, _data_type(datatype), (size,))
                for name, datatype, size in _outputs(manifest)
            ),
            DynamicBatching(LOWEST_PRIORITY, DEFAULT_PRIORITY),
        )

    def index(self, only_ready: bool) -> list[ModelIndex]:
        """The models that are there; with ``only_ready`` those that answer at once."""
        found = [
            ModelIndex(
                name,
                entry.manifest.version,
                _STATES.get(entry.state, "UNAVAILABLE"),
                entry.problem or ("" if entry.state == "ready" else entry.state),
            )
            for name, entry in self._runtime.store.entries()
        ]
        return [each for each in found if each.state == "READY" or not only_ready]

    def statistics(self, model: str | None = None, version: str | None = None) -> Statistics:
        """Of ``model``, or of all that are loaded."""
        if model:
            return Statistics((self._statistics(self._entry(model, version)),))
        entries = [entry for _, entry in self._runtime.store.entries() if entry.model is not None]
        return Statistics(tuple(map(self._statistics, entries)))

    def _statistics(self, entry: Entry[Model]) -> ModelStatistics:
        counts = self._service.metrics.statistics.of(entry.manifest.name)
        inputs, none = counts.success.count, Duration(counts.success.count)
        return ModelStatistics(
            entry.manifest.name,
            entry.manifest.version,
            int(counts.last * 1e3),
            inputs,
            counts.executions,
            InferStatistics(
                success=_duration(counts.success),
                fail=_duration(counts.fail),
                queue=_duration(counts.queue),
                compute_input=none,
                compute_infer=_duration(
                    Total(inputs, counts.success.seconds - counts.queue.seconds)
                ),
                compute_output=none,
            ),
            tuple(
                BatchStatistics(size, Duration(each.count), _duration(each), Duration(each.count))
                for size, each in sorted(counts.batches.copy().items())
            ),
        )

    def _entry(self, model: str, version: str | None) -> Entry[Model]:
        entry = self._runtime.store.entry(model)
        check_version(entry.manifest, version)
        return entry


def check_load(parameters: object) -> None:
    """NotOffered where a model is to be loaded otherwise than as it is."""
    if parameters:
        raise NotOffered("a model is loaded as it is: parameters are not offered", "parameters")


def check_unload(parameters: Iterable[str]) -> None:
    """NotOffered for another parameter than the one that no model here has a use for: none depends
    on another."""
    for name in parameters:
        if name != "unload_dependents":
            raise NotOffered(f"{name!r} is not offered: a model is unloaded as it is", "parameters")


def _platform(manifest: Manifest) -> str:
    return f"delen_{manifest.runtime}"


def _dims(spec: InputSpec) -> tuple[int, ...]:
    """The shape of a sample, with -1 where it depends on the sample's size."""
    return tuple(
        lengths[0] if len({*lengths}) == 1 else -1 for lengths in zip(*spec.shapes, strict=True)
    )


def _outputs(manifest: Manifest) -> list[tuple[str, str, int]]:
    """Name, datatype and values a sample of each output."""
    sizes = {LOGITS: ("FP32", manifest.classes), CLASSES: ("BYTES", 1)}
    return [(name, *sizes[name]) for name in output_names(manifest)]


def _data_type(datatype: str) -> str:
    return _DATA_TYPES.get(datatype, f"TYPE_{datatype}")


def _duration(total: Total) -> Duration:
    return Duration(total.count, round(total.seconds * 1e9))
