"""From a configuration to a running engine. Part of the composition root."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from delen.assembly import SHIPPED_BUNDLES, Assembler, PolicySettings
from delen.config import Config
from delen.engine.backends.choose import BundleBackends
from delen.engine.model import Model
from delen.engine.runtime import Runtime
from delen.engine.store import ModelStore
from delen.engine.watch import WatchSettings
from delen.engine.worker import Observer
from delen.errors import BundleError, ConfigError
from policies.planner import PlannerSettings
from power.choose import account_of, choose_source
from power.monitor import PowerMonitor


@dataclass(frozen=True, slots=True)
class Opened:
    """A runtime with what was opened for it."""

    runtime: Runtime
    power: PowerMonitor


def open_runtime(
    config: Config, observer: Observer, find: Callable[[], Iterable[Path]] | None = None
) -> Opened:
    """The engine that ``config`` describes, no model loaded yet.

    ``find`` gives the bundles' folders where they are not the configuration's.
    """
    source = choose_source(config["power.source"], config["power.watts_per_core"])
    backend = BundleBackends(config["device.backend"], config["device.threads"])
    assembler = Assembler(
        backend,
        account_of(source),
        policy_settings(config),
        Path(config["state.path"]),
        Path(config["power.root"]),
    )
    folders = bundle_folders(config)
    runtime = Runtime(
        find or (lambda: find_bundles(folders)),
        assembler,
        observer,
        backend.threads,
        config["server.max_backlog_seconds"],
    )
    return Opened(runtime, PowerMonitor(source))


def bundle_folders(config: Config) -> list[Path]:
    """Where ``config`` says that bundles are: the shipped ones, and the user's."""
    return [SHIPPED_BUNDLES, *([Path(config["models.path"])] if config["models.path"] else [])]


def bundle_by_name(config: Config, name: str) -> Path:
    """The folder of the bundle ``name``; ModelNotFound lists those that there are."""
    return ModelStore(lambda: find_bundles(bundle_folders(config)), _no_load).entry(name).path


def _no_load(path: Path) -> Model:
    raise BundleError(f"{path} is looked up here, not loaded")


def find_bundles(folders: Sequence[Path]) -> list[Path]:
    """Every folder in ``folders`` whose name begins with no dot; of two bundles of one name the
    later wins."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"models.path: {folder} is not a folder")
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    ]


def policy_settings(config: Config) -> PolicySettings:
    options: dict[str, Any] = {}
    file = config["policies.conditions"]
    if file:
        if config["policies.exit"] != "conditions":
            raise ConfigError("policies.conditions is set, but policies.exit is not 'conditions'")
        try:
            options["conditions"] = json.loads(Path(file).read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"policies.conditions {file}: {error}") from error
    elif config["policies.exit"] == "conditions":
        raise ConfigError("policies.exit is 'conditions', which needs policies.conditions")
    return PolicySettings(
        exit=config["policies.exit"],
        options=options,
        quantile=config["policies.quantile"],
        planner=PlannerSettings(
            guarantee=config["policies.guarantee"],
            tolerance=config["policies.tolerance"],
            procedure=config["policies.procedure"],
            lossless=config["policies.lossless"],
        ),
        watch=WatchSettings(
            delta=1 - config["policies.guarantee"],
            window=config["policies.feedback_window"],
            audit_fraction=config["policies.audit_fraction"],
        ),
    )
