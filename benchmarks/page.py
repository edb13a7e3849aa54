"""``docs/results.md``: what benchmarks printed, the machine and versions, and what was missed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.common import Figure
from delen.profile.device import available_cores, processor_name

PACKAGES = ("delen", "numpy", "onnxruntime", "uvicorn", "flask", "msgspec")
_PROJECT = Path(__file__).resolve().parents[1]
_COMMAND = re.compile(r"^``python -m [^`]*``: ")


@dataclass(frozen=True)
class Section:
    """One benchmark: what its module says of it, what it printed, and why it failed, if it did."""

    name: str
    about: str
    output: str
    figures: Sequence[Figure]
    seconds: float
    failure: str | None = None

    @property
    def missed(self) -> list[Figure]:
        return [figure for figure in self.figures if figure.holds is False]


def page(sections: Sequence[Section], absent: int = 0) -> str:
    """The whole page, in Markdown; ``absent`` benchmarks were not run."""
    parts = [_head(sections, absent), _verdict(sections)]
    parts += [_section(section) for section in sections]
    return "\n\n".join(parts) + "\n"


def _head(sections: Sequence[Section], absent: int) -> str:
    minutes = sum(section.seconds for section in sections) / 60
    rows = [
        ("date", f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {minutes:.0f} minutes"),
        ("machine", _machine()),
        ("system", f"{platform.system()} {_kernel()}, {platform.machine()}"),
        ("versions", ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)])),
        ("source", _source()),
    ]
    left_out = f" **This run left out {absent} of them.**" if absent else ""
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""\
# Results

`make results` writes this page; do not edit it. It runs the benchmarks below one after another
(`python -m benchmarks NAME` runs one of them) and prints what they print.{left_out}

| | |
|---|---|
{table}

A line has a figure's median over its rounds and, in brackets, its quartiles. A claim follows, if
one is made of the median: `ok` or `MISSED`. No Jetson was at hand. Figures that name one are
simulations from published profiles or from sensor models, and each section says so.

![accuracy against latency and energy per exit of the shipped network](exits.png)

*The shipped network on the machine that drew the picture (`make plot`). Energy is estimated:
processor time × a stated 4 W a core.*"""


def _verdict(sections: Sequence[Section]) -> str:
    claims = [
        figure for section in sections for figure in section.figures if figure.limit is not None
    ]
    missed = [(section, figure) for section in sections for figure in section.missed]
    lines = [f"## Missed claims\n\n{len(missed)} of {len(claims)} claims are missed."]
    lines += [
        f"- [{section.name}](#{_anchor(section.name)}): {_said(figure)}"
        for section, figure in missed
    ]
    failed = [section for section in sections if section.failure]
    lines += [f"- [{section.name}](#{_anchor(section.name)}) did not end" for section in failed]
    return "\n".join([lines[0], *([""] if lines[1:] else []), *lines[1:]])


def _section(section: Section) -> str:
    text = f"## {section.name.replace('_', ' ')}\n\n{_about(section.about)}\n\n"
    text += f"```\n{section.output.strip()}\n```\n\n*{section.seconds:.0f} s.*"
    if section.failure:
        text += f" **This benchmark did not end: {section.failure}**"
    return text


def _about(docstring: str) -> str:
    """A module's docstring as Markdown, without the command that runs it."""
    text = _COMMAND.sub("", docstring.strip()).replace("``", "`")
    return text[:1].upper() + text[1:]


def _said(figure: Figure) -> str:
    sign = "<=" if figure.at_most else ">="
    return f"{figure.name}: {figure.median:.4g} {figure.unit}, claimed {sign} {figure.limit:g}"


def _anchor(name: str) -> str:
    return name.replace("_", "-")


def _machine() -> str:
    cores = available_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    flags = Path("/proc/cpuinfo")
    virtual = flags.exists() and " hypervisor" in flags.read_text()
    kind = ", virtual" if virtual else ""
    return f"{processor_name(Path('/'))}, {cores} cores, {memory:.1f} GiB of memory{kind}"


def _kernel() -> str:
    return ".".join(platform.release().split("-")[0].split(".")[:2])


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def _source() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(_PROJECT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!docs")
        return (
            f"commit {git('rev-parse', '--short', 'HEAD')}{', with local changes' * bool(changed)}"
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
