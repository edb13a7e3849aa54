"""Daemons whose network breaks on command: it raises, hangs, crashes, or is slow; or their clock
steps."""

from __future__ import annotations

import os
from pathlib import Path

_SITECUSTOMIZE = """
import os

if flag := os.environ.get("BREAKS_WHILE"):
    import ctypes, time

    from delen.engine.backends.onnx import OnnxNetwork

    run = OnnxNetwork.run

    def breaking(self, segment, samples, lane=0):
        if not os.path.exists(flag):
            return run(self, segment, samples, lane)
        try:
            how, model, first = open(flag).read().split()
        except OSError:  # it is mended by now
            return run(self, segment, samples, lane)
        if model not in ("any", self._bundle.name) or segment < int(first):
            return run(self, segment, samples, lane)
        if how == "exit":
            raise SystemExit
        if how == "raise":
            raise RuntimeError("the device is gone")
        if how == "once":
            os.unlink(flag)
            raise RuntimeError("the device was gone")
        if how == "crash":
            ctypes.string_at(0)
        while how == "hang" and os.path.exists(flag):
            time.sleep(0.01)
        began = time.perf_counter()
        ran = run(self, segment, samples, lane)
        if how == "slow":
            time.sleep(2 * (time.perf_counter() - began))
        return ran

    OnnxNetwork.run = breaking

    clock = time.time

    def stepping():
        try:
            return clock() + os.stat(flag + "-clock").st_size - 2**31
        except OSError:
            return clock()

    time.time = stepping
"""


class BrokenBackend:
    """``environment`` is for the daemons that are to break; ``folder`` is for this alone."""

    def __init__(self, folder: Path) -> None:
        self._flag = folder / "breaks"
        self._clock = folder / "breaks-clock"
        (folder / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        path = filter(None, [str(folder), os.environ.get("PYTHONPATH")])
        self.environment = {
            "PYTHONPATH": os.pathsep.join(path),
            "BREAKS_WHILE": str(self._flag),
        }

    def start(self, how: str, model: str = "any", segment: int = 0) -> None:
        """From now on ``model`` breaks from ``segment`` on: it raises an error (``raise``, or
        ``once`` and no more), ends its thread (``exit``), does not return (``hang``), reads where
        there is no memory (``crash``), or takes three times as long (``slow``)."""
        whole = self._flag.with_name("next")
        whole.write_text(f"{how} {model} {segment}")
        whole.replace(self._flag)

    def step_clock(self, seconds: int) -> None:
        """The time of day that Python reads is so many seconds off from now on."""
        with self._clock.open("wb") as file:
            file.truncate(2**31 + seconds)  # a size is read where no file can be opened

    def mend(self) -> None:
        self._flag.unlink(missing_ok=True)
        self._clock.unlink(missing_ok=True)
