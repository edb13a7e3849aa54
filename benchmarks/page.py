"""``docs/results.md``: what benchmarks printed, when and on what, and what was missed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import timeit
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.common import Figure
from delen.profile.device import available_cores, processor_name

PACKAGES = ("delen", "numpy", "onnxruntime", "uvicorn", "flask", "msgspec")
_PROJECT = Path(__file__).resolve().parents[1]
_COMMAND = re.compile(r"^``python -m [^`]*``: ")
_CLAIM = re.compile(
    r"^(?P<name>.+?) +(?P<median>\S+) (?P<unit>\S*) +\[.*\]"
    r"  (?P<limit>[<>]= \S+): (?P<verdict>\w+)$",
    re.MULTILINE,
)
_FAILED = "This benchmark did not end"


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


def page(sections: Sequence[Section], known: Sequence[str], before: str = "") -> str:
    """The whole page, in Markdown: ``sections``, and those on the page ``before`` of the other
    benchmarks that are ``known``, in their order."""
    texts = _read(before) | {_title(each.name): _section(each) for each in sections}
    shown = {name: texts[_title(name)] for name in known if _title(name) in texts}
    absent = [name for name in known if name not in shown]
    return "\n\n".join([_head(absent), _verdict(shown), *shown.values()]) + "\n"


def _read(page: str) -> dict[str, str]:
    """The sections of ``page`` by their titles."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].removeprefix("## "): part.strip() for part in parts}


def _head(absent: Sequence[str]) -> str:
    left_out = f" Not run yet: {', '.join(absent)}." if absent else ""
    return f"""\
# Results

The benchmarks write this page; do not edit it. `python -m benchmarks NAME --markdown
docs/results.md` runs one of them and puts what it prints in its section. `make results` runs all
that install nothing and end within minutes. Each section ends with when it ran, of which source,
and on what; how long a million additions took says how fast the machine was then.{left_out}

A line has a figure's median over its rounds and, in brackets, its quartiles. A claim follows, if
one is made of the median: `ok` or `MISSED`. No Jetson was at hand. Figures that name one are
simulations from published profiles or from sensor models, and each section says so.

![accuracy against latency and energy per exit of the shipped network](exits.png)

*The shipped network on the machine that drew the picture (`make plot`). Energy is estimated:
processor time × a stated 4 W a core.*"""


def _verdict(sections: Mapping[str, str]) -> str:
    """What the texts of ``sections``, by name, say of their claims."""
    claims = [(name, claim) for name, text in sections.items() for claim in _CLAIM.finditer(text)]
    missed = [
        f"- [{name}](#{_anchor(name)}): {claim['name']}: {claim['median']} {claim['unit']}".rstrip()
        + f", claimed {claim['limit']}"
        for name, claim in claims
        if claim["verdict"] == "MISSED"
    ]
    lines = [f"{len(missed)} of {len(claims)} claims are missed.", ""]
    failed = [name for name, text in sections.items() if _FAILED in text]
    lines += missed + [f"- [{name}](#{_anchor(name)}) did not end" for name in failed]
    return "\n".join(["## Missed claims", "", *lines]).rstrip()


def _section(section: Section) -> str:
    text = f"## {_title(section.name)}\n\n{_about(section.about)}\n\n"
    ended = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    versions = ", ".join([f"Python {platform.python_version()}", *map(_version, PACKAGES)])
    text += f"```\n{section.output.strip()}\n```\n\n*{section.seconds:.0f} s until {ended}, "
    text += f"{_source()}; {_machine()}, {_pace()}; {versions}.*"
    if section.failure:
        text += f" **{_FAILED}: {section.failure}**"
    return text


def _about(docstring: str) -> str:
    """A module's docstring as Markdown, without the command that runs it."""
    text = _COMMAND.sub("", docstring.strip()).replace("``", "`")
    return text[:1].upper() + text[1:]


def _title(name: str) -> str:
    return name.replace("_", " ")


def _anchor(name: str) -> str:
    return name.replace("_", "-")


def _machine() -> str:
    cores = available_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    flags = Path("/proc/cpuinfo")
    virtual = flags.exists() and " hypervisor" in flags.read_text()
    kind = ", virtual" if virtual else ""
    system = f"{platform.system()} {_kernel()}, {platform.machine()}"
    return f"{processor_name(Path('/'))}, {cores} cores, {memory:.1f} GiB{kind}, {system}"


def _pace() -> str:
    """How fast the machine is at this moment: virtual ones are not always equally fast."""
    statement = "for number in range(1_000_000): total += number"
    seconds = min(timeit.repeat(statement, "total = 0", number=1, repeat=5))
    return f"a million additions in Python take {1e3 * seconds:.0f} ms"


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
