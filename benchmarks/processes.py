"""What the kernel says of a process and those below it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def family(root: int) -> dict[int, str]:
    """The command lines of ``root`` and of all processes below it, by number."""
    parents, commands = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                number = int(folder.name)
                parents[number] = int(_stat(number)[1])
                command = (folder / "cmdline").read_bytes()
                commands[number] = command.replace(b"\0", b" ").decode(errors="replace")
    found = {root}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return {number: commands[number] for number in found if number in commands}


def is_running(number: int) -> bool:
    """Whether there is such a process, which has not ended yet."""
    with suppress(OSError):
        return bool(Path(f"/proc/{number}/cmdline").read_bytes())
    return False


def processor_seconds(numbers: Iterable[int]) -> float:
    """What these processes have used of the processor."""
    return sum(int(field) for number in numbers for field in _stat(number)[11:13]) / _TICKS


def memory_mb(numbers: Iterable[int]) -> float:
    """The memory of these processes, with pages that several share counted once in all."""
    total = 0
    for number in numbers:
        lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
        total += int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return total / 1e3


def _stat(number: int) -> list[str]:
    return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
