"""``delen profile``: measure a bundle on this device."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from delen.errors import ConfigError
from delen.profile import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure latency quantiles and processor time of each segment at each batch size. The\n"
        "daemon takes the profile over at its next start. Stop it while measuring."
    )
    parser.epilog = "example: delen profile --bundle ./my-bundle --beside-bundle"
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--bundle", type=Path, help="folder of the bundle")
    which.add_argument("--model", help="name of a shipped or configured model (the default one)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, metavar="FILE", help="write it here")
    where.add_argument(
        "--beside-bundle", action="store_true", help="write it into the bundle's own folder"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument("--quick", action="store_true", help="seconds, not half a minute")
    parser.add_argument("--json", action="store_true", help="print the profile")


def run(options: argparse.Namespace) -> int:
    from delen.assembly import SHIPPED_BUNDLES
    from delen.bundle import load_bundle
    from delen.config import read_config
    from delen.device import identify
    from delen.engine.backends.choose import BundleBackends
    from delen.profiler import QUICK, THOROUGH, measure_profile
    from delen.profiles import beside_file, save_profile, state_file
    from delen.serving import bundle_by_name

    config = read_config(options.config, os.environ)
    folder = options.bundle or bundle_by_name(config, options.model or config["models.default"])
    if options.beside_bundle and SHIPPED_BUNDLES in folder.resolve().parents:
        raise ConfigError(f"{folder} is part of the installed package; leave out --beside-bundle")
    bundle = load_bundle(folder)
    network = BundleBackends(config["device.backend"], config["device.threads"]).load(bundle)
    where = network.placement
    device = identify(Path(config["power.root"]), where.provider, where.threads, where.runtime)
    effort = QUICK if options.quick else THOROUGH
    profile = measure_profile(bundle, network, device, effort, _show_progress)
    if options.output is not None:
        file = options.output
    elif options.beside_bundle:
        file = beside_file(bundle, device)
    else:
        file = state_file(Path(config["state.path"]), bundle, device)
    save_profile(profile, file)
    print(profile.to_json() if options.json else _table(profile), end="")
    print(f"written to {file}", file=sys.stderr)
    return 0


def _show_progress(done: int, total: int, what: str) -> None:
    if sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        end = "\n" if done == total else ""
        print(f"\r[{bar:<30}] {done}/{total} {what:<12}", end=end, file=sys.stderr, flush=True)
    else:
        print(f"{done}/{total} {what}", file=sys.stderr)


def _table(profile: Profile) -> str:
    lines = [
        f"{profile.model} on {profile.device.key}, milliseconds a segment and batch",
        f"{'segment':>7} {'batch':>5} {'p50':>8} {'p90':>8} {'p99':>8} {'processor':>9}",
    ]
    for segment, costs in enumerate(profile.segments):
        for batch, cost in sorted(costs.items()):
            latency = cost.latency
            figures = (latency.p50, latency.p90, latency.p99)
            columns = " ".join(f"{1e3 * value:8.3f}" for value in figures)
            lines.append(f"{segment:>7} {batch:>5} {columns} {1e3 * cost.processor:9.3f}")
    return "\n".join(lines) + "\n"
