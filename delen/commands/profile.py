"""``delen profile``: measure a bundle on this device."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from delen.commands.common import number, whole
from delen.commands.profile_table import instances_table, pairs_table, profile_table
from delen.core.variant import format_size
from delen.errors import ConfigError, PowerError
from delen.profile.profile import Profile

if TYPE_CHECKING:
    from delen.bundle.manifest import Bundle
    from delen.daemon.config import Config
    from delen.engine.backends.base import Network
    from delen.engine.backends.choose import BundleBackends
    from delen.profile.energy_account import EnergyAccount
    from delen.profile.profile import Device
    from power.metering.blocks import BlockPlan
    from power.sources.sampler import Sampler
    from power.sources.source import PowerSource

_MOST_LANES = 8
"""So many instances are measured beside each other, if there are cores for more."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure latency quantiles and processor time of each segment at each batch size, and\n"
        "what serving takes beside them; with --energy also joules, by a power sensor. The\n"
        "daemon takes the profile over at its next start. Stop it while measuring. Each power\n"
        "mode has a profile of its own."
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
    parser.add_argument(
        "--instances",
        action="store_true",
        help="also how much several instances slow each other down, and which number of instances "
        "and threads is best",
    )
    energy = parser.add_argument_group(
        "energy", "by blocks: idle, one exit over and over, idle; in random order"
    )
    energy.add_argument(
        "--energy",
        action="store_true",
        help="measure joules, too; latencies of a thorough profile of this device are kept",
    )
    energy.add_argument(
        "--blocks", type=whole(1), metavar="N", help="blocks of each exit and batch: 5"
    )
    energy.add_argument(
        "--block-seconds",
        type=number,
        metavar="S",
        help="length of a block: 10; idle is half of it",
    )
    energy.add_argument(
        "--batches",
        type=_batches,
        metavar="1,8",
        help="batch sizes, beside 1 and the largest; those between are interpolated",
    )
    energy.add_argument(
        "--spread",
        type=number,
        metavar="0.05",
        help="widest interval accepted, to either side, as a share of an exit's joules",
    )


def run(options: argparse.Namespace) -> int:
    from delen.bundle.manifest import load_bundle
    from delen.daemon.build_model import SHIPPED_BUNDLES
    from delen.daemon.build_runtime import bundle_by_name, configured_lanes
    from delen.daemon.config import read_config
    from delen.engine.backends.choose import BundleBackends
    from delen.measure.energy import POLL, retained
    from delen.profile.device import available_cores, identify
    from delen.profile.store import beside_file, save_profile, state_file
    from power.modes.modes import read_mode
    from power.sources.sampler import Sampler

    plan = _block_plan(options)
    config = read_config(options.config, os.environ)
    folder = options.bundle or bundle_by_name(config, options.model or config["models.default"])
    if options.beside_bundle and SHIPPED_BUNDLES in folder.resolve().parents:
        raise ConfigError(f"{folder} is part of the installed package; leave out --beside-bundle")
    bundle = load_bundle(folder)
    backend = BundleBackends(config["device.backend"], config["device.threads"])
    network = backend.load(bundle)
    where = network.placement
    root = Path(config["power.root"])
    device = identify(
        root, where.provider, where.threads, where.runtime, power_mode=read_mode(root).key
    )
    source = None if plan is None else _open_sensor(config, where.provider)
    lanes = configured_lanes(config, backend.provider)
    if options.instances:
        lanes = max(lanes, min(_MOST_LANES, available_cores() // config["device.threads"]))
    profiles: list[Profile] = []
    for each, runs_on in zip(bundle.sizes, (network, *network.smaller), strict=True):
        if each.size is not None:
            print(f"at {format_size(each.size)} pixels:", file=sys.stderr)
        profile = _latencies(options, config, each, runs_on, device)
        if lanes > 1:
            profile = _with_interference(options, each, runs_on, profile, lanes)
        if profiles:
            profile = replace(profile, host=profiles[0].host)
        elif profile.host is None:
            profile = _with_host(config, backend, each, runs_on, profile)
        profiles.append(profile)
    if plan is not None and source is not None:
        sampler = Sampler(source, POLL, retained(plan))
        profiles = _with_energies(bundle, network, profiles, sampler, root, plan, options.batches)
    profile = replace(profiles[0], smaller=tuple(profiles[1:]))
    if options.output is not None:
        file = options.output
    elif options.beside_bundle:
        file = beside_file(bundle, device)
    else:
        file = state_file(Path(config["state.path"]), bundle, device)
    save_profile(profile, file)
    tables = "\n".join(map(profile_table, profile.sizes))
    print(profile.to_json() if options.json else tables, end="")
    if options.instances:
        table = _compare_instances(options, config, bundle)
        print(table, end="", file=sys.stderr if options.json else sys.stdout)
    disturbed = [each.measured.others for each in profile.sizes if each.measured and each.busy]
    if disturbed:
        print(
            f"note: other work had {max(disturbed):.0%} of the processor meanwhile, so the profile "
            "may be wrong; stop what else runs here, and measure it again",
            file=sys.stderr,
        )
    print(f"written to {file}", file=sys.stderr)
    return 0


def _with_interference(
    options: argparse.Namespace, bundle: Bundle, network: Network, profile: Profile, lanes: int
) -> Profile:
    from delen.measure.interference import QUICK_ROUNDS, THOROUGH_ROUNDS, measure_interference

    rounds = QUICK_ROUNDS if options.quick else THOROUGH_ROUNDS
    print(f"measuring how much 2 to {lanes} instances slow each other down", file=sys.stderr)
    return replace(profile, interference=measure_interference(bundle, network, lanes, rounds))


def _compare_instances(options: argparse.Namespace, config: Config, bundle: Bundle) -> str:
    """Tables of what instances and threads do, and what batches do to others."""
    from delen.engine.backends.choose import BundleBackends
    from delen.measure.interference import (
        QUICK_ROUNDS,
        THOROUGH_ROUNDS,
        measure_instances,
        measure_pairs,
    )
    from delen.profile.concurrency import splits
    from delen.profile.device import available_cores

    tried = splits(available_cores())
    print(f"comparing {len(tried)} numbers of instances and threads", file=sys.stderr)
    networks = {
        threads: BundleBackends(config["device.backend"], threads).load(bundle)
        for threads in sorted({threads for _, threads in tried})
    }
    rounds = QUICK_ROUNDS if options.quick else THOROUGH_ROUNDS
    rows = measure_instances(bundle, networks, tried, rounds)
    print("measuring which batch sizes slow which others", file=sys.stderr)
    pairs = measure_pairs(bundle, networks[min(networks)], rounds)
    return instances_table(rows) + pairs_table(pairs)


def _block_plan(options: argparse.Namespace) -> BlockPlan | None:
    """How energy is to be measured, None where it is not; ConfigError for wrong usage."""
    from power.metering.blocks import BlockPlan

    given = {
        "--blocks": options.blocks,
        "--block-seconds": options.block_seconds,
        "--batches": options.batches,
        "--spread": options.spread,
    }
    if not options.energy:
        for name, value in given.items():
            if value is not None:
                raise ConfigError(f"{name} says how to measure energy: it needs --energy")
        return None
    plan = BlockPlan()
    for name, field in (
        ("--blocks", "rounds"),
        ("--block-seconds", "seconds"),
        ("--spread", "spread"),
    ):
        if given[name] is not None:
            try:
                plan = replace(plan, **{field: given[name]})
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
    return plan


def _open_sensor(config: Config, provider: str) -> PowerSource:
    """The configured source, which must measure: what is estimated is never called measured."""
    from power.sources.probe import open_source

    chosen = open_source(
        config["power.source"],
        Path(config["power.root"]),
        total_rails=config["power.total_rails"],
        watts_per_core=config["power.watts_per_core"],
        gpu=not provider.endswith("cpu"),
        interval=config["power.interval_ms"] / 1e3,
    )
    if chosen.source is not None and chosen.source.kind == "measured":
        return chosen.source
    remedy = "`delen doctor` says what was tried and what would help"
    if chosen.source is None:
        raise PowerError("power.source is 'none', which measures nothing", remedy)
    chosen.source.close()
    raise PowerError(
        f"no sensor measures the power here: {chosen.source.name!r} only estimates it", remedy
    )


def _latencies(
    options: argparse.Namespace, config: Config, bundle: Bundle, network: Network, device: Device
) -> Profile:
    """A profile as it is known where only energy is wanted; else a new one, which keeps the
    energies that are known."""
    from delen.measure.energy import keep_energies
    from delen.measure.segments import QUICK, THOROUGH, measure_profile
    from delen.profile.store import find_profile

    known = find_profile(Path(config["state.path"]), bundle, device)
    is_right = known is not None and not known.busy and (options.quick or not known.quick)
    if options.energy and known is not None and is_right:
        print(f"the latencies measured on {known.created} are kept", file=sys.stderr)
        return known
    effort = QUICK if options.quick else THOROUGH
    profile = measure_profile(bundle, network, device, effort, _show_progress)
    if known is None or known.energy is None or options.energy:
        return profile
    print(f"the energies measured on {known.created} are kept", file=sys.stderr)
    return keep_energies(profile, known)


def _with_host(
    config: Config, backend: BundleBackends, bundle: Bundle, network: Network, profile: Profile
) -> Profile:
    from delen.daemon.build_runtime import make_builder

    energy = _ModelledEnergy(profile.device.power_mode, config["power.watts_per_core"])
    builder = make_builder(config, backend, energy)
    profile = builder.with_host(bundle, network, profile, energy.account(profile))
    if profile.host is None:
        print("note: what serving takes beside the segments was not found out", file=sys.stderr)
    return profile


@dataclass(frozen=True, slots=True)
class _ModelledEnergy:
    """The energy of a model that is measured and serves nobody."""

    mode: str
    watts_per_core: float

    def account(self, profile: Profile) -> EnergyAccount:
        from delen.energy.accounts import Accounts

        return Accounts("model", self.watts_per_core).open(profile)


def _with_energies(
    bundle: Bundle,
    network: Network,
    profiles: Sequence[Profile],
    sampler: Sampler,
    root: Path,
    plan: BlockPlan,
    batches: Sequence[int] | None,
) -> list[Profile]:
    """The ``profiles`` of all sizes with energies."""
    from delen.measure.energy import measure_energy
    from power.modes.modes import steady_key

    metered, networks = [], (network, *network.smaller)
    sampler.start()
    try:
        for each, runs_on, profile in zip(bundle.sizes, networks, profiles, strict=True):
            measured, notes = measure_energy(
                each,
                runs_on,
                profile,
                sampler,
                lambda: steady_key(root),
                plan,
                batches or (),
                _show_progress,
            )
            metered.append(measured)
            for note in notes:
                print(f"note: {note}", file=sys.stderr)
    finally:
        sampler.close()
    return metered


def _batches(text: str) -> list[int]:
    try:
        return [whole(1)(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} must be batch sizes above 0 with commas between, such as 1,8"
        ) from None


def _show_progress(done: int, total: int, what: str) -> None:
    if sys.stderr.isatty():
        bar = "#" * (30 * done // total)
        end = "\n" if done == total else ""
        print(f"\r[{bar:<30}] {done}/{total} {what:<36}", end=end, file=sys.stderr, flush=True)
    else:
        print(f"{done}/{total} {what}", file=sys.stderr)
