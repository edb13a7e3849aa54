"""``python -m benchmarks [NAME ...]``: all, or those named; ends 1 when a claim is missed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import (
    attribution,
    blocks,
    bounds,
    chain,
    decisions,
    dispatch,
    energy_control,
    footprint,
    guarantee,
    http,
    isolation,
    power_overhead,
    reality,
    residency,
    simulation,
)

BENCHMARKS = {
    "chain": chain.main,
    "http": http.main,
    "bounds": bounds.main,
    "guarantee": guarantee.main,
    "decisions": decisions.main,
    "simulation": simulation.main,
    "dispatch": dispatch.main,
    "isolation": isolation.main,
    "residency": residency.main,
    "reality": reality.main,
    "blocks": blocks.main,
    "attribution": attribution.main,
    "energy_control": energy_control.main,
    "power_overhead": power_overhead.main,
    "footprint": footprint.main,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="by default all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args()
    names = options.names or list(BENCHMARKS)
    figures = {name: BENCHMARKS[name]() for name in names}
    if options.json is not None:
        document = {name: [figure.to_json() for figure in made] for name, made in figures.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    missed = [figure for made in figures.values() for figure in made if figure.holds is False]
    print(f"\n{len(missed)} claims missed" if missed else "\nevery claim holds")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
