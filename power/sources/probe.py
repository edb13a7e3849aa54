"""Which power source serves this machine: the first, in a fixed order, that gives a reading."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from delen.errors import ConfigError, MissingExtra, PowerError, SensorAbsent, SensorFailed
from power.sources.hwmon import INA238, INA3221
from power.sources.iio import INA3221X
from power.sources.jtop import Jtop
from power.sources.model import ProcessorModel
from power.sources.nvml import Nvml
from power.sources.rails import RailSource
from power.sources.rapl import Rapl
from power.sources.source import PowerReading, PowerSource

SOURCES = ("ina3221", "ina3221x", "ina238", "jtop", "nvml", "rapl", "model")
"""In the order of ``auto``: the board's own files before the server that reads them for others,
sensors before the model."""
CHOICES = ("auto", *SOURCES, "none")
_ATTEMPTS = 3
_PAUSE = 0.2
"""Seconds between two attempts: a sensor that failed once may only have been busy."""
_PATIENCE = 10.0
"""Seconds that a source may take to open, or to read: one that blocks must not hold up a start."""

T = TypeVar("T")

log = logging.getLogger("delen.power")


@dataclass(frozen=True, slots=True)
class Probe:
    """What came of trying one source: a reading, or the problem and what would help.

    A source that reads well and still does not measure what segments run on has both.
    ``absent``: this machine has no such sensor, which is not a fault.
    """

    source: str
    reading: PowerReading | None
    problem: str | None = None
    remedy: str | None = None
    absent: bool = False

    @property
    def serves(self) -> bool:
        return self.problem is None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The open source (None: no energy), what was tried for it, and why it is this one."""

    source: PowerSource | None
    probes: tuple[Probe, ...]
    why: str


def open_source(
    choice: str,
    root: Path,
    *,
    total_rails: Sequence[str] = (),
    watts_per_core: float,
    gpu: bool = False,
    interval: float = 0.05,
) -> Chosen:
    """Open the source for ``choice`` (one of CHOICES) on the machine whose ``/`` is ``root``.

    ``total_rails`` are the rails of the total where the board is not known; ``watts_per_core`` is
    for the model; ``gpu`` says that segments run on a discrete or integrated GPU, which RAPL does
    not see, and else NVML would measure what does not run; ``interval`` is how often, in seconds,
    jtop is asked for readings.

    ``auto`` takes the first source that gives a reading, which the model always does. A source
    that is named is taken if it can be opened, even when it has no reading now. What was chosen
    and why is logged in one line. Raises ConfigError for an unknown name, and for a named source
    that cannot be opened.
    """
    if choice not in CHOICES:
        raise ConfigError(f"power.source is {choice!r}, which is not one of {', '.join(CHOICES)}")
    openers = _openers(root, total_rails, watts_per_core, interval)
    if choice == "none":
        chosen = Chosen(None, (), "no power source, as configured: energy is unknown")
    elif choice == "auto":
        chosen = _first_that_serves(openers, gpu)
    else:
        chosen = _named(choice, openers[choice])
    faults = any(not probe.serves and not probe.absent for probe in chosen.probes)
    log.log(logging.WARNING if faults else logging.INFO, "%s", chosen.why)
    return chosen


def probe_sources(
    root: Path,
    *,
    total_rails: Sequence[str] = (),
    watts_per_core: float,
    gpu: bool = False,
    interval: float = 0.05,
) -> tuple[Probe, ...]:
    """Try every source, and leave none open. The arguments are those of ``open_source``; ``auto``
    would take the first that serves."""
    probes = []
    for name, opener in _openers(root, total_rails, watts_per_core, interval).items():
        source, probe = _try(name, opener)
        if source is not None:
            source.close()
        unfit = _unfit(name, gpu)
        if probe.serves and unfit is not None:
            probe = Probe(name, probe.reading, unfit, _force(name), absent=True)
        probes.append(probe)
    return tuple(probes)


def _openers(
    root: Path, total_rails: Sequence[str], watts_per_core: float, interval: float
) -> dict[str, Callable[[], PowerSource]]:
    rails = tuple(total_rails)
    openers: dict[str, Callable[[], PowerSource]] = {
        "ina3221": lambda: RailSource(INA3221, root, rails),
        "ina3221x": lambda: RailSource(INA3221X, root, rails),
        "ina238": lambda: RailSource(INA238, root, rails),
        "jtop": lambda: Jtop(root, rails, interval),
        "nvml": Nvml,
        "rapl": lambda: Rapl(root),
        "model": lambda: ProcessorModel(watts_per_core),
    }
    return {name: openers[name] for name in SOURCES}


def _first_that_serves(openers: dict[str, Callable[[], PowerSource]], gpu: bool) -> Chosen:
    probes: list[Probe] = []
    for name, opener in openers.items():
        unfit = _unfit(name, gpu)
        if unfit is not None:
            probes.append(Probe(name, None, unfit, _force(name), absent=True))
            continue
        source, probe = _try(name, opener)
        probes.append(probe)
        if source is not None and probe.serves:
            return Chosen(source, tuple(probes), _why(source, probe, probes))
        if source is not None:
            source.close()
    raise AssertionError("the model always serves")


def _named(name: str, opener: Callable[[], PowerSource]) -> Chosen:
    try:
        source = _in_time(opener)
    except (PowerError, MissingExtra) as error:
        remedy = getattr(error, "remedy", None)
        raise ConfigError(
            f"power.source is {name!r}, which cannot be opened: {error}"
            + (f"; {remedy}" if remedy else "")
        ) from error
    probe = _read(name, source)
    return Chosen(source, (probe,), f"{_why(source, probe, ())}, as configured")


def _try(name: str, opener: Callable[[], PowerSource]) -> tuple[PowerSource | None, Probe]:
    """The open source, if it opens, and what its first reading is."""
    try:
        source = _in_time(opener)
    except (PowerError, MissingExtra) as error:
        return None, _problem(name, error)
    return source, _read(name, source)


def _read(name: str, source: PowerSource) -> Probe:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            reading = _in_time(source.read)
            if reading.total is None or not math.isfinite(reading.total):
                raise PowerError(f"its total is {reading.total}")
        except PowerError as error:
            is_hopeless = isinstance(error, _Blocked) or not isinstance(error, SensorFailed)
            if attempt == _ATTEMPTS or is_hopeless:
                return _problem(name, error)
            time.sleep(_PAUSE)
        else:
            return Probe(name, reading)
    raise AssertionError("unreachable")


class _Blocked(SensorFailed):
    """The source has not come back."""


def _in_time(call: Callable[[], T]) -> T:
    """What ``call`` returns or raises. One that blocks is left to itself, on its own thread, and
    _Blocked is raised."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(call())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="power-probe", daemon=True).start()
    if not wait([done], _PATIENCE).done:
        raise _Blocked(f"it has not answered for {_PATIENCE:g} s")
    return done.result()


def _problem(name: str, error: PowerError | MissingExtra) -> Probe:
    remedy = getattr(error, "remedy", None)
    return Probe(name, None, str(error), remedy, absent=isinstance(error, SensorAbsent))


def _unfit(name: str, gpu: bool) -> str | None:
    if name == "nvml" and not gpu:
        return "it measures the GPU, but segments run on the processor"
    if name == "rapl" and gpu:
        return "it measures the processor, but segments run on the GPU"
    return None


def _force(name: str) -> str:
    return f"power.source = {name!r} uses it anyway"


def _why(source: PowerSource, probe: Probe, tried: Sequence[Probe]) -> str:
    """One sentence. Of sources that this machine does not have it lists the names alone."""
    now = (
        f"{probe.reading.total:.2f} W now"
        if probe.reading is not None and probe.reading.total is not None
        else f"no reading yet: {probe.problem}"
    )
    why = f"energy is {source.kind} by {source.name} ({source.scope}), {now}"
    absent = [other.source for other in tried if other.absent]
    failed = [
        f"{other.source} ({other.problem}{f'; {other.remedy}' if other.remedy else ''})"
        for other in tried
        if not other.serves and not other.absent
    ]
    if failed:
        why += f"; passed over {', '.join(failed)}"
    if absent:
        why += f"; not here: {', '.join(absent)}"
    return why
