"""Which cells ``benchmarks.dispatch`` plays, and its results as lines of JSON that a later run
takes up, so that a long grid can be played in parts."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice, product
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.dispatch_cells import ALL_KINDS, DEVICES, Cell, Size, model_of, play

_ROOT = Path(__file__).resolve().parents[1]
_DECIDING = (
    "delen/scheduler",
    "delen/simulate",
    "delen/core",
    "delen/profile",
    "policies",
    "benchmarks/dispatch_cells.py",
    "benchmarks/profiles",
)
"""What results depend on; those of another state of it do not count."""


@dataclass(frozen=True, slots=True)
class Grid:
    """All combinations of devices, kinds, tenants and loads, each with so many seeds."""

    size: Size
    devices: tuple[str, ...] = DEVICES
    kinds: tuple[str, ...] = ALL_KINDS
    tenants: tuple[int, ...] = (1, 3, 10)
    loads: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9, 1.0, 1.2, 1.5)
    seeds: int = 6

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(*values) for values in product(self.devices, self.kinds, self.tenants, self.loads)
        ]


FULL = Grid(Size(640, 6.4))
"""1,512 jobs of 2.6 processor seconds on average: about an hour of one core. They come seed by
seed, so that five sixths of the time give the same grid with five seeds."""

QUICK = Grid(Size(500, 5.0), kinds=("poisson", "bursts"), loads=(0.6, 0.9, 1.5))


class Job(NamedTuple):
    """One line of the results."""

    cell: Cell
    seed: int
    size: Size
    policies: tuple[str, ...]

    @property
    def key(self) -> str:
        """The same for the same requests, policies and code."""
        device = sha256(model_of(self.cell.device).profile.to_json().encode()).hexdigest()
        parts = (*self.cell, self.seed, self.size, self.policies, device, code())
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def line(self, key: str) -> dict[str, Any]:
        return {"key": key, **play(self.cell, self.seed, self.size, self.policies)}


@lru_cache
def code() -> str:
    """A digest of all that decides what comes out."""
    digest = sha256()
    for part in _DECIDING:
        path = _ROOT / part
        for file in sorted(path.rglob("*.*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".json"):
                digest.update(file.read_bytes())
    return digest.hexdigest()


def jobs_of(grid: Grid, policies: Sequence[str]) -> list[Job]:
    """Seed by seed, so that a part of them is a coarse picture of all."""
    return [
        Job(cell, seed, grid.size, tuple(policies))
        for seed in range(grid.seeds)
        for cell in grid.cells
    ]


def read_lines(file: Path) -> dict[str, dict[str, Any]]:
    """The results in ``file`` by key; a line that was cut short is passed over."""
    lines: dict[str, dict[str, Any]] = {}
    if not file.exists():
        return lines
    for text in file.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        lines[line["key"]] = line
    return lines


def fill(jobs: Sequence[Job], file: Path, processes: int, seconds: float) -> list[dict[str, Any]]:
    """The lines of those ``jobs`` that are in ``file``, or could be played and added to it in
    ``seconds``."""
    keys = [job.key for job in jobs]
    lines = read_lines(file)
    left = [(job, key) for job, key in zip(jobs, keys, strict=True) if key not in lines]
    if left:
        file.parent.mkdir(parents=True, exist_ok=True)
        _end_line(file)
        began = time.monotonic()
        with file.open("a") as out:
            for done, line in enumerate(_play(left, processes, began + seconds), start=1):
                out.write(json.dumps(line) + "\n")
                out.flush()
                lines[line["key"]] = line
                _tell(done, len(left), time.monotonic() - began)
        print(file=sys.stderr)
    return [lines[key] for key in keys if key in lines]


def _end_line(file: Path) -> None:
    """So that what is added does not continue a line that was cut short."""
    if file.exists() and not file.read_bytes().endswith(b"\n"):
        with file.open("a") as out:
            out.write("\n")


def _play(
    jobs: Iterable[tuple[Job, str]], processes: int, until: float
) -> Iterator[dict[str, Any]]:
    """As they end. Jobs are handed out one at a time, so that none begins after ``until``."""
    coming = iter(jobs)
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(Job.line, *job) for job in islice(coming, processes)}
        while running:
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            if time.monotonic() < until:
                running |= {pool.submit(Job.line, *job) for job in islice(coming, len(ended))}
            for future in ended:
                yield future.result()


def _tell(done: int, total: int, seconds: float) -> None:
    left = seconds / done * (total - done) if done else inf
    text = f"{done} of {total} played, {left / 60:.1f} minutes left"
    if sys.stderr.isatty():
        print(f"\r{text:<60}", end="", file=sys.stderr, flush=True)
    elif done % max(1, total // 20) == 0:
        print(text, file=sys.stderr, flush=True)
