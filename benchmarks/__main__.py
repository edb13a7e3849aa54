"""``python -m benchmarks [NAME ...]``: all, or those named; ends 1 when a claim is missed.

``backbones`` and ``fuzz`` take half an hour, ``bcedge`` and those of fleets some minutes each,
``servers`` installs 2 GB of other servers, ``trust_soak`` takes an hour: these run only where they
are named.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from benchmarks import (
    attribution,
    backbones,
    bcedge,
    blocks,
    bounds,
    budgets,
    chain,
    connections,
    decisions,
    dispatch,
    dynamic_networks,
    energy_control,
    footprint,
    fusion,
    fuzz,
    guarantee,
    handover,
    http,
    http_isolation,
    isolation,
    onnx_import,
    overhead,
    power_overhead,
    priorities,
    reality,
    residency,
    servers,
    shift,
    simulation,
    sizes,
    soak,
    streams,
    transports,
    trust,
)
from benchmarks.common import Figure
from benchmarks.fleet import aset, daemons, dystri, hub, jellyfish, offload
from benchmarks.fleet import decisions as fleet_decisions
from benchmarks.page import Section, page

BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "chain": chain.main,
    "http": http.main,
    "overhead": overhead.main,
    "http_isolation": http_isolation.main,
    "connections": connections.main,
    "bounds": bounds.main,
    "guarantee": guarantee.main,
    "shift": shift.main,
    "decisions": decisions.main,
    "simulation": simulation.main,
    "dispatch": dispatch.main,
    "sizes": sizes.main,
    "isolation": isolation.main,
    "priorities": priorities.main,
    "residency": residency.main,
    "dynamic_networks": dynamic_networks.main,
    "reality": reality.main,
    "streams": streams.main,
    "blocks": blocks.main,
    "attribution": attribution.main,
    "energy_control": energy_control.main,
    "budgets": budgets.main,
    "power_overhead": power_overhead.main,
    "onnx_import": onnx_import.main,
    "footprint": footprint.main,
    "fusion": fusion.main,
    "transports": transports.main,
    "handover": handover.main,
    "soak": soak.main,
    "trust": trust.main,
}
ON_REQUEST: dict[str, Callable[[], list[Figure]]] = {
    "backbones": backbones.main,
    "bcedge": bcedge.main,
    "fleet_decisions": fleet_decisions.main,
    "fleet_jellyfish": jellyfish.main,
    "fleet_dystri": dystri.main,
    "fleet_aset": aset.main,
    "fleet_offload": offload.main,
    "fleet_hub": hub.main,
    "fleet_daemons": daemons.main,
    "fleet_daemons_short": daemons.main_short,
    "fuzz": fuzz.main,
    "servers": servers.main,
    "trust_kills": trust.main_kills,
    "trust_soak": trust.main_soak,
}


class _Copying(io.StringIO):
    """Keeps what is written to it, and writes it to ``shown``."""

    def __init__(self, shown: TextIO) -> None:
        super().__init__()
        self._shown = shown

    def write(self, text: str) -> int:
        self._shown.write(text)
        self._shown.flush()
        return super().write(text)


def _title(benchmark: Callable[[], list[Figure]]) -> str:
    """The first sentence of what its module says of it."""
    about = sys.modules[benchmark.__module__].__doc__ or ""
    return " ".join(about.split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def run(name: str) -> Section:
    """One benchmark. One that fails takes no other with it."""
    benchmark = {**BENCHMARKS, **ON_REQUEST}[name]
    about = sys.modules[benchmark.__module__].__doc__ or ""
    figures: list[Figure] = []
    failure = None
    began = time.monotonic()
    with redirect_stdout(_Copying(sys.stdout)) as output:
        try:
            figures = benchmark()
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            failure = str(error) or type(error).__name__
    seconds = time.monotonic() - began
    return Section(name, about, output.getvalue(), figures, seconds, failure)


def _show(section: Section, file: Path, known: Sequence[str]) -> None:
    """Put ``section`` on the page ``file``, whose other sections stay."""
    before = file.read_text("utf-8") if file.exists() else ""
    file.write_text(page([section], known, before), "utf-8")


def main() -> int:
    known = {**BENCHMARKS, **ON_REQUEST}
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog="\n".join(f"{name:<18} {_title(benchmark)}" for name, benchmark in known.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"by default all but {', '.join(ON_REQUEST)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE", help="bring the sections of this page up to date"
    )
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"there is no benchmark {unknown[0]!r}; known: {', '.join(known)}")
    sections = []
    for name in options.names or BENCHMARKS:
        sections.append(run(name))
        if options.markdown is not None:
            _show(sections[-1], options.markdown, [*known])
    if options.json is not None:
        document = {each.name: [figure.to_json() for figure in each.figures] for each in sections}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    missed = sum(len(section.missed) for section in sections)
    failed = [section.name for section in sections if section.failure]
    print(f"\n{missed} claims missed" if missed else "\nevery claim holds")
    if failed:
        print(f"did not end: {', '.join(failed)}")
    return 1 if missed or failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
