"""``delen.Engine``: the whole of delen in one process, with no daemon."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from delen.bundle.manifest import Manifest, read_manifest
from delen.core.bounds import Bounds, OnInfeasible, Options
from delen.core.guarantee import Feedback
from delen.core.plan import Preview
from delen.errors import DelenError, InvalidInput
from delen.sdk.inputs import Input, encode, is_text_batch
from delen.sdk.labels import plain_labels
from delen.sdk.polling import follow, wait_settled

if TYPE_CHECKING:
    from delen.core.result import EnergyOutcome, Result
    from delen.core.work import Work
    from delen.daemon.build_runtime import Opened

_SIBLINGS = ("policies", "power")
_HOME = Path(__file__).resolve().parents[2]


class Engine:
    """Serves one bundle in this process: ``with Engine("path/to/bundle") as e: e.infer(x)``.

    Without ``bundle`` it is the shipped one. ``backend`` is auto, cpu, cuda or tensorrt;
    ``instances`` batches run at once (0: as many as there are cores for), each on ``threads``, by
    default all cores but one; ``power`` is as ``power.source`` of
    the configuration; ``state`` the folder where profiles are kept. A device without a profile of
    the bundle is measured first, which takes a few seconds. Raises InvalidInput, BundleError,
    BackendError, ConfigError or MissingExtra. A forked child does not have its threads, and gets a
    DelenError.
    """

    _is_forked = False
    _is_closed = False

    def __init__(
        self,
        bundle: str | Path | None = None,
        *,
        backend: str = "auto",
        threads: int | None = None,
        instances: int = 1,
        power: str = "auto",
        state: str | Path | None = None,
    ) -> None:
        _check_siblings()
        from delen.daemon.build_model import SHIPPED_BUNDLES
        from delen.daemon.build_runtime import open_runtime
        from delen.daemon.config import config_of

        given = {
            "device.backend": backend,
            "device.threads": threads,
            "device.instances": instances,
            "power.source": power,
            "state.path": None if state is None else str(_folder(state, "state")),
        }
        config = config_of({name: value for name, value in given.items() if value is not None})
        folder = (
            SHIPPED_BUNDLES / config["models.default"]
            if bundle is None
            else _folder(bundle, "bundle")
        )
        self._name = read_manifest(folder)[0].name
        self._opened = open_runtime(config, _Silent(), lambda: [folder])
        _engines.add(self)
        try:
            self._manifest = self._opened.load(self._name).bundle.manifest
            self._opened.profiler.start()
        except BaseException:
            self.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself: its input, classes, labels and exits."""
        return self._manifest

    def infer(
        self,
        x: Input,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
        stream: str | None = None,
        priority: int | None = None,
        top_k: int = 1,
        on_infeasible: OnInfeasible = "reject",
    ) -> Any:
        """As ``Client.infer``: a Result, or a list of them when ``x`` is a batch."""
        from delen.engine.inputs import split_batch

        runtime = self._here().runtime
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        options = Options(
            stream=stream,
            priority=priority,
            top_k=top_k,
            on_infeasible=on_infeasible,
            probabilities=True,
        )
        samples, is_batch = split_batch(self._decode(x), self._manifest.input)
        jobs = runtime.submit_batch(self._name, samples, bounds, options)
        try:
            results = [follow(job.future.result(), self._settle) for job in jobs]
        except BaseException:
            runtime.cancel(jobs)
            raise
        return results if is_batch else results[0]

    def _settle(self, request_id: str, timeout: float) -> EnergyOutcome:
        return wait_settled(lambda: self._here().energy.receipt(request_id), request_id, timeout)

    def _decode(self, x: Input) -> NDArray[Any]:
        if isinstance(x, np.ndarray):
            return x
        from delen.engine.inputs import decode_body, decode_json

        if is_text_batch(x):
            return decode_json([text.content for text in x], self._manifest.input)
        encoded = encode(x)
        return decode_body(encoded.body, encoded.media_type, self._manifest.input)

    def plan(
        self,
        *,
        max_latency: float | None = None,
        min_accuracy: float | None = None,
        max_energy: float | None = None,
    ) -> Preview:
        """What these bounds would buy now, without an input."""
        bounds = Bounds(max_latency=max_latency, min_accuracy=min_accuracy, max_energy=max_energy)
        return self._here().runtime.preview(self._name, bounds)

    def feedback(self, labels: Mapping[str, int | str]) -> Feedback:
        """As ``Client.feedback``."""
        return self._here().runtime.feedback(self._name, plain_labels(labels))

    def close(self) -> None:
        """Stop the executor; jobs under way answer early. A forked child leaves that to its
        parent."""
        if not self._is_forked:
            self._is_closed = True
            self._opened.close()

    def _here(self) -> Opened:
        if self._is_forked:
            raise DelenError(
                "this engine was opened before a fork, and its threads are in the parent; open an "
                "Engine in the child, or use delen.Client and a daemon"
            )
        if self._is_closed:
            raise DelenError("this engine is closed; infer before its with block ends")
        return self._opened

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _folder(path: object, field: str) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not path:
        raise InvalidInput(f"{field} is {path!r}; it must be the path of a folder", field)
    return Path(path)


_engines: WeakSet[Engine] = WeakSet()


def _disown() -> None:
    """In a forked child. What ONNX Runtime frees waits for its threads, which are not in the child:
    its sessions are never freed there, and the process ends before the library's own end."""
    for engine in _engines:
        engine._is_forked = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine._opened))
    if _engines:
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)  # last registered, first called; it keeps the exit status


os.register_at_fork(after_in_child=_disown)


class _Silent:
    """An observer that keeps no counts."""

    def answered(self, result: Result) -> None: ...
    def ran(self, work: Work) -> None: ...
    def segment_failed(self, model: str, segment: int) -> None: ...
    def policy_failed(self, model: str) -> None: ...
    def dispatch_failed(self, times: int) -> None: ...
    def audited(self, model: str, agreed: bool) -> None: ...


def _check_siblings() -> None:
    """The engine needs delen's own top-level packages; an app's of the same name hide them."""
    for name in _SIBLINGS:
        spec = find_spec(name)
        if spec is None or spec.origin is None or Path(spec.origin).parents[1] != _HOME:
            raise DelenError(
                f"the engine needs delen's package {name!r}, but this app finds "
                f"{spec.origin if spec else 'none'} under that name; use delen.Client and a daemon"
            )
