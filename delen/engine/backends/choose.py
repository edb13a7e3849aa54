"""Which backend loads a bundle: the one of the runtime that its manifest names."""

from __future__ import annotations

from functools import cached_property

from delen.bundle.manifest import Bundle
from delen.engine.backends.base import Backend, Network
from delen.engine.backends.onnx import OnnxBackend


class BundleBackends:
    """ONNX Runtime for graphs, torch for exported programs.

    ``name`` is that of ``device.backend``. torch takes a second and 200 MB to import, and is not
    part of what serving needs, so its backend is made when the first bundle needs it. Raises
    ConfigError for an unknown name, BackendError where ONNX Runtime lacks its provider.
    """

    def __init__(self, name: str, threads: int) -> None:
        self.name = name
        self.threads = threads
        self._onnx = OnnxBackend(name, threads)

    @property
    def provider(self) -> str:
        """What ONNX graphs run on: cpu, cuda or tensorrt."""
        return self._onnx.provider

    def open(self, bundle: Bundle) -> Network:
        return self._of(bundle).open(bundle)

    def load(self, bundle: Bundle) -> Network:
        return self._of(bundle).load(bundle)

    def _of(self, bundle: Bundle) -> Backend:
        return self._torch if bundle.manifest.runtime == "torch" else self._onnx

    @cached_property
    def _torch(self) -> Backend:
        from delen.engine.backends.torch import TorchBackend

        return TorchBackend(self.name, self.threads)
