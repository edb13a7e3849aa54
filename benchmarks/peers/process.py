"""A server with all its processes, on one core: its start, processor time, memory and end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 90.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Cores:
    """Where servers run and where the load does: two cores, or the only one."""

    server: int
    load: int

    @classmethod
    def of_this_process(cls) -> Cores:
        cores = sorted(os.sched_getaffinity(0))
        return cls(cores[0], cores[-1])


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This thread, and what it starts, on ``core``."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A server that has answered. ``others`` are this process's children that are not its own."""

    address: tuple[str, int]
    seconds_to_ready: float
    others: frozenset[int]

    def processor_seconds(self) -> float:
        return sum(_processor_seconds(process) for process in descendants() - self.others)

    def resident_mb(self) -> float:
        """Of all its processes; what several share counts once."""
        return sum(_resident_mb(process) for process in descendants() - self.others)


@contextmanager
def running(
    command: Sequence[str],
    variables: Mapping[str, str],
    folder: Path,
    core: int,
    answers: Callable[[tuple[str, int]], bool],
) -> Iterator[Running]:
    """The server that ``command`` starts in ``folder``, from when ``answers(address)``. "{port}"
    stands for a free port in its words and ``variables``. RuntimeError with the end of its log if
    it ends before or takes too long. All that it has started is ended with it."""
    _adopt_orphans(True)
    others, port = descendants(), free_port()
    began = time.perf_counter()
    log = folder / "log"
    with log.open("wb") as output, on_core(core):
        process = subprocess.Popen(
            [word.replace("{port}", str(port)) for word in command],
            env={**os.environ, **{k: v.replace("{port}", str(port)) for k, v in variables.items()}},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        while not _succeeds(answers, ("127.0.0.1", port)):
            if process.poll() is not None or time.perf_counter() - began > _START_SECONDS:
                raise RuntimeError(f"it did not start: {_last_lines(log)}")
            time.sleep(0.01)
        yield Running(("127.0.0.1", port), time.perf_counter() - began, others)
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        while left := descendants() - others:
            _end(left)
        _adopt_orphans(False)


def _adopt_orphans(adopts: bool) -> None:
    """Whether descendants whose parents end become children of this process."""
    ctypes.CDLL(None).prctl(_SUBREAPER, int(adopts), 0, 0, 0)


def _succeeds(answers: Callable[[tuple[str, int]], bool], address: tuple[str, int]) -> bool:
    try:
        return answers(address)
    except (OSError, RuntimeError):
        return False


def _last_lines(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:])[-400:] or "it wrote nothing"


def _end(processes: frozenset[int]) -> None:
    """Kills ``processes``, and forgets those that are children of this one by now."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    for process in processes:
        with suppress(ChildProcessError):
            os.waitpid(process, 0)


def descendants() -> frozenset[int]:
    """Of this process. Those whose parents have ended are among them once it adopts them."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, open_ = set[int](), [os.getpid()]
    while open_:
        more = children.get(open_.pop(), [])
        found.update(more)
        open_ += more
    return frozenset(found)


def _stat(process: int) -> list[str] | None:
    """The fields of its ``stat`` that follow its name, or None if it has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _processor_seconds(process: int) -> float:
    fields = _stat(process)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _resident_mb(process: int) -> float:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e3
