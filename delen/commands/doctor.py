"""``delen doctor``: what this device is, and which power source can serve it."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from delen.commands.common import address
from delen.errors import DelenError

if TYPE_CHECKING:
    from delen.commands.doctor_checks import Check
    from delen.daemon.config import Config
    from power.sources.probe import Probe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Examine the device: its board, power mode and throttling, every power source with its\n"
        "reading or its problem, the default model's profile, and the daemon. Try what serving\n"
        "needs: the configuration as the daemon's start checks it, the provider by a run, the\n"
        "socket's rights, clocks, memory and disk. The exit status is 1 when a daemon would not\n"
        "start with the configuration, its power source gives no reading, the daemon's is\n"
        "degraded, or the default model does not run where it should."
    )
    parser.epilog = "example: delen doctor --config /etc/delen/delen.toml"
    parser.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration")
    parser.add_argument(
        "--url", type=address, help="the daemon's address; by default the configuration's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    from delen.daemon.config import read_config

    config = read_config(options.config, os.environ)
    found = examine(config, options.url)
    print(json.dumps(found) if options.json else "\n".join(_lines(found)))
    is_measuring = found["energy"]["problem"] is None and found["daemon"]["degraded"] is None
    wrong = {check["name"] for check in found["checks"] if check["state"] == "wrong"}
    does_run = found["model"]["problem"] is None and not wrong & {"config", "provider"}
    return 0 if is_measuring and does_run else 1


def examine(config: Config, url: str | None = None) -> dict[str, Any]:
    """Everything that the command prints, for the machine under ``power.root``: ``device``,
    ``board``, ``power_mode``, ``thermal``, ``model``, ``checks``, ``sources``, ``energy`` and
    ``daemon``."""
    from delen.commands.doctor_checks import check_configuration, check_device
    from delen.profile.device import available_cores, processor_name
    from power.sources.boards import identify_board
    from power.sources.probe import probe_sources

    root = Path(config["power.root"])
    board = identify_board(root)
    mode = _power_mode(root)
    model, of_model = _model(config, root, mode["key"])
    checks = [check_configuration(config), *of_model, *check_device(config, root)]
    probes = probe_sources(
        root,
        total_rails=config["power.total_rails"],
        watts_per_core=config["power.watts_per_core"],
        gpu=model["provider"] not in (None, "cpu"),
        interval=config["power.interval_ms"] / 1e3,
    )
    return {
        "device": {"processor": processor_name(root), "cores": available_cores()},
        "board": board
        and {"family": board.family, "rails": [*board.rails], "total": [*board.total]},
        "power_mode": mode,
        "thermal": _thermal(root),
        "model": model,
        "checks": [check._asdict() for check in checks],
        "sources": [_source(probe) for probe in probes],
        "energy": _energy(config["power.source"], {probe.source: probe for probe in probes}),
        "daemon": _daemon(config, url),
    }


def _power_mode(root: Path) -> dict[str, Any]:
    from power.modes.modes import read_mode, throttling

    mode = read_mode(root)
    return {
        "id": mode.id,
        "name": mode.name,
        "clocks": mode.clocks,
        "jetson_clocks": mode.jetson_clocks,
        "key": mode.key,
        "throttling": [*throttling(root).now],
    }


def _thermal(root: Path) -> dict[str, Any] | None:
    from power.modes.thermal import headroom, read_zones

    nearest = headroom(read_zones(root))
    if nearest is None:
        return None
    return {"zone": nearest.zone, "headroom_c": nearest.celsius, "trip": nearest.trip.kind}


def _model(config: Config, root: Path, power_mode: str) -> tuple[dict[str, Any], list[Check]]:
    """The default model, what it runs on, and its profile on this device in this power mode; and
    what was tried out with it."""
    found: dict[str, Any] = {
        "name": config["models.default"],
        "provider": None,
        "threads": None,
        "profile": None,
        "problem": None,
    }
    try:
        from delen.bundle.manifest import load_bundle
        from delen.commands.doctor_checks import check_memory, check_profile, check_provider
        from delen.daemon.build_runtime import bundle_by_name
        from delen.engine.backends.choose import BundleBackends
        from delen.profile.device import identify
        from delen.profile.store import find_profile
        from delen.residency.sizes import segment_sizes

        bundle = load_bundle(bundle_by_name(config, config["models.default"]))
        backends = BundleBackends(config["device.backend"], config["device.threads"])
        network = backends.load(bundle)
        where = network.placement
        found |= {"provider": where.provider, "threads": where.threads}
        device = identify(root, where.provider, where.threads, where.runtime, power_mode)
        profile = find_profile(Path(config["state.path"]), bundle, device)
    except DelenError as error:
        return found | {"problem": str(error)}, []
    if profile is not None:
        found["profile"] = {
            "created": profile.created,
            "quick": profile.quick,
            "busy": profile.busy,
            "energy": profile.energy and profile.energy.source,
            "host": not profile.lacks_host,
        }
    checks = [
        check_provider(network, len(bundle.exits), config["device.backend"]),
        check_memory(sum(segment_sizes(bundle.manifest, lanes=1))),
        check_profile(profile, bundle),
    ]
    return found, checks


def _source(probe: Probe) -> dict[str, Any]:
    reading = probe.reading
    return {
        "source": probe.source,
        "watts": reading and reading.total,
        "rails": dict(reading.rails) if reading else {},
        "serves": probe.serves,
        "problem": probe.problem,
        "remedy": probe.remedy,
    }


def _energy(choice: str, probes: Mapping[str, Probe]) -> dict[str, Any]:
    """Which source would serve, and why none does although one is configured."""
    if choice == "none":
        return {"configured": choice, "source": None, "problem": None}
    if choice == "auto":
        source = next(name for name, probe in probes.items() if probe.serves)
        return {"configured": choice, "source": source, "problem": None}
    named = probes[choice]
    problem = named.problem if named.reading is None else None
    return {"configured": choice, "source": None if problem else choice, "problem": problem}


def _daemon(config: Config, url: str | None) -> dict[str, Any]:
    from delen.sdk.client import Client

    try:
        with Client(url or _address(config), timeout=2.0) as client:
            address = client.url
            models, power = client.models(), client.power()
    except DelenError as error:
        where = url or _address(config)
        return {"answers": False, "url": where, "problem": str(error), "degraded": None}
    ready = [model["name"] for model in models if model["state"] == "ready"]
    degraded = f"{power['source']}: {power['problem']}" if power["state"] == "degraded" else None
    return {"answers": True, "url": address, "problem": None, "ready": ready, "degraded": degraded}


def _address(config: Config) -> str:
    """Where the environment, or else the configuration, says that the daemon listens."""
    from delen.sdk.address import URL_VARIABLE, connect_problem

    if url := os.environ.get(URL_VARIABLE):
        return url
    path = config["server.socket"]
    if path and connect_problem(path) is None:
        return f"unix://{path}"
    scheme = "https" if config["server.tls_cert"] else "http"
    return f"{scheme}://{config['server.host']}:{config['server.port']}"


def _lines(found: Mapping[str, Any]) -> list[str]:
    from delen.commands.doctor_checks import lines_of

    device, board, mode = found["device"], found["board"], found["power_mode"]
    thermal, model, daemon = found["thermal"], found["model"], found["daemon"]
    rails = " + ".join(board["total"]) if board and board["total"] else "no sensor"
    slowed = "; ".join(mode["throttling"])
    return [
        f"device      {device['processor']}, {_count(device['cores'], 'core')}",
        f"board       {board['family'] + ': total is ' + rails if board else 'not a known Jetson'}",
        f"power mode  {mode['key']}{', jetson_clocks' if mode['jetson_clocks'] else ''}",
        *([f"            SLOWED DOWN: {slowed}"] if slowed else []),
        "thermal     "
        + (
            f"{thermal['headroom_c']:.1f} degrees below {thermal['zone']}'s trip point "
            f"({thermal['trip']})"
            if thermal
            else "no trip points"
        ),
        f"model       {_model_line(model)}",
        f"daemon      {_daemon_line(daemon)}",
        *([f"            DEGRADED: {daemon['degraded']}"] if daemon["degraded"] else []),
        "",
        "what was tried:",
        *lines_of(found["checks"]),
        "",
        "power sources, in the order of 'auto':",
        *(line for source in found["sources"] for line in _source_lines(source, found["energy"])),
        *_energy_lines(found["energy"]),
    ]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _model_line(model: Mapping[str, Any]) -> str:
    if model["problem"]:
        return f"{model['name']}: {model['problem']}"
    line = f"{model['name']} on {model['provider']}, {_count(model['threads'], 'thread')}; "
    profile = model["profile"]
    if profile is None:
        return f"{line}no profile of this device in this power mode: delen profile measures one"
    line += f"{'quick ' * profile['quick']}profile of {profile['created']}, "
    if profile["energy"] is None:
        line += (
            "without energy: delen profile --energy measures it, or the daemon while it is idle "
        )
        line += "with energy.self_profile = true; more is attributed with it"
    else:
        line += f"with energy by {profile['energy']}"
    if not profile["host"]:
        line += "; what serving takes beside segments is unknown: delen profile measures it"
    if profile["busy"]:
        line += "; MEASURED ON A BUSY MACHINE, so plans may be wrong: "
        again = "a daemon measures it again once the machine is calm and nothing is served"
        line += again if profile["quick"] else "delen profile measures it again"
    return line


def _daemon_line(daemon: Mapping[str, Any]) -> str:
    if not daemon["answers"]:
        return str(daemon["problem"])
    return f"answers at {daemon['url']}; ready: {', '.join(daemon['ready']) or 'no model'}"


def _source_lines(source: Mapping[str, Any], energy: Mapping[str, Any]) -> list[str]:
    mark = "->" if source["source"] == energy["source"] else "  "
    head = f"{mark} {source['source']:<9}"
    lines = []
    if source["watts"] is not None:
        rails = ", ".join(f"{rail} {watts:.2f}" for rail, watts in source["rails"].items())
        lines.append(f"{source['watts']:.2f} W ({rails})")
    if source["problem"]:
        lines.append(source["problem"])
    if source["remedy"]:
        lines.append(f"remedy: {source['remedy']}")
    return [f"{head if nth == 0 else ' ' * len(head)} {line}" for nth, line in enumerate(lines)]


def _energy_lines(energy: Mapping[str, Any]) -> list[str]:
    if energy["configured"] == "none":
        return ["power.source is 'none': energy is unknown"]
    if energy["problem"]:
        return [f"power.source is {energy['configured']!r}, which gives no reading"]
    return []
