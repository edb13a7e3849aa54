"""From a configuration to a running engine. Part of the composition root."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from delen.core.bounds import check_name
from delen.core.crash_guard import CrashGuard
from delen.core.energy_status import Battery
from delen.core.events import EventBus
from delen.daemon.build_model import SHIPPED_BUNDLES, ModelBuilder, ModelEnergy, PolicySettings
from delen.daemon.config import Config
from delen.daemon.idle_profiler import IdleProfiler
from delen.daemon.peers import HttpPeers, peer_name
from delen.daemon.settings import DEFAULT_DISAGREEMENT, DEFAULT_DISPATCH
from delen.energy.service import EnergyService, EnergySettings
from delen.engine.backends.choose import BundleBackends
from delen.engine.executor import LOCAL
from delen.engine.guarantee_monitor import MonitorSettings
from delen.engine.model import Model
from delen.engine.observer import Observer
from delen.engine.runtime import Runtime
from delen.errors import ConfigError, Forbidden, InvalidInput, PowerError
from delen.profile.concurrency import lanes_of
from delen.profile.device import available_cores
from delen.residency.registry import ModelRegistry
from delen.scheduler.core import Scheduler
from delen.tenants.energy_file import EnergyFile
from delen.tenants.store import TenantStore
from policies.energy.api import ControllerSettings
from policies.plan.planner import PlannerSettings
from policies.plugins import (
    ENERGY_CONTROLLERS,
    EXIT_POLICIES,
    DamagedPolicy,
    find_plugin,
    make_dispatch,
)
from power.sources.probe import open_source

log = logging.getLogger("delen")


@dataclass(frozen=True, slots=True)
class Opened:
    """A runtime with what was opened for it. ``profiler`` is to be started once the first models
    are there by ``load``."""

    runtime: Runtime
    energy: EnergyService
    profiler: IdleProfiler
    peers: HttpPeers | None = None

    def load(self, name: str) -> Model:
        """Load ``name`` before anything is served. What its serving takes is measured, if a quick
        profile does not say it."""
        model = self.runtime.load(name, is_trusted=False)
        self.profiler.complete(model)
        return model

    def close(self) -> None:
        """Stop measuring, then the engine, then the energy accounting."""
        self.profiler.close()
        self.runtime.close()
        self.close_peers()
        self.energy.close()

    def close_peers(self) -> None:
        """Once the engine has stopped."""
        if self.peers is not None:
            self.peers.close()


def open_runtime(
    config: Config,
    observer: Observer,
    find: Callable[[], Iterable[Path]] | None = None,
    energy_file: EnergyFile | None = None,
    at_once: bool = False,
    guard: CrashGuard | None = None,
) -> Opened:
    """The engine that ``config`` describes, no model loaded yet.

    ``find`` gives the bundles' folders where they are not the configuration's; ``energy_file``
    keeps tenants' energy over restarts. Where it is to serve ``at_once``, nothing is measured
    before: but under a cap on memory, where a profile can be measured only while a model is loaded
    for that. ``guard`` knows the models that crash the process.
    """
    check_config(config)
    backend = BundleBackends(config["device.backend"], config["device.threads"])
    lanes = configured_lanes(config, backend.provider)
    scheduler = _make_scheduler(config, lanes, config["server.max_backlog_seconds"])
    events = EventBus()
    peers = HttpPeers(config["fleet.peers"]) if config["fleet.peers"] else None
    energy = _open_energy(config, backend.provider != "cpu", energy_file, events)
    try:
        at_once = at_once and not config["models.memory_mb"]
        builder = make_builder(config, backend, energy, lanes, events, at_once)
        folders = bundle_folders(config)
        memory = config["models.memory_mb"] * 1e6 or inf
        runtime = Runtime(
            find or (lambda: find_bundles(folders)),
            builder.open,
            observer,
            backend.threads,
            scheduler,
            energy.admission,
            memory,
            events,
            node_name(config),
            peers,
            config["device.hang_seconds"],
            guard,
        )
    except BaseException:
        energy.close()
        raise
    energy.start(
        lambda: [each for model in runtime.store.models() for each in model.sizes],
        lambda model: runtime.change(model, builder.follow_mode(model)),
        runtime,
    )
    metered = energy if config["energy.self_profile"] else None
    if peers is not None:
        peers.start()
    profiler = IdleProfiler(runtime, builder, metered, at_once, guard)
    return Opened(runtime, energy, profiler, peers)


def make_builder(
    config: Config,
    backend: BundleBackends,
    energy: ModelEnergy,
    lanes: int = 1,
    events: EventBus | None = None,
    is_rough_first: bool = False,
) -> ModelBuilder:
    """What makes models as ``config`` describes them."""
    return ModelBuilder(
        backend,
        energy,
        policy_settings(config),
        partial(_make_scheduler, config),
        Path(config["state.path"]),
        Path(config["power.root"]),
        lanes,
        events,
        is_rough_first,
    )


def configured_lanes(config: Config, provider: str) -> int:
    """How many batches may run at once on ``provider``; says so where they outnumber the cores."""
    threads, cores = config["device.threads"], available_cores()
    lanes = lanes_of(config["device.instances"], threads, cores, provider != "cpu")
    if provider == "cpu" and lanes > 1 and lanes * threads > cores:
        log.warning(
            "device.instances %d with device.threads %d each are %d threads for %d cores",
            lanes,
            threads,
            lanes * threads,
            cores,
        )
    return lanes


def _make_scheduler(config: Config, lanes: int, max_backlog: float = inf) -> Scheduler:
    name = config["policies.dispatch"]
    policy = make_dispatch(name)
    if isinstance(policy, DamagedPolicy):
        log.error("policies.dispatch: %s; the default decides", policy.problem)
    default = policy if name == DEFAULT_DISPATCH else make_dispatch(DEFAULT_DISPATCH)
    return Scheduler(policy, default, lanes, max_backlog=max_backlog)


def _open_energy(
    config: Config, is_gpu: bool, file: EnergyFile | None, events: EventBus
) -> EnergyService:
    root, watts_per_core = Path(config["power.root"]), config["power.watts_per_core"]
    make_controller = find_plugin(ENERGY_CONTROLLERS, config["energy.controller"])
    settings = EnergySettings(
        interval=config["power.interval_ms"] / 1e3,
        window=config["power.window_seconds"],
        receipts=config["power.receipts"],
        watts_per_core=watts_per_core,
        mode=config["power.mode"],
        switch_modes=config["power.switch_modes"],
        trust_model=config["power.trust_model"],
        watt_cap=config["energy.watt_cap_w"] or None,
        battery=_battery_of(config),
        most_tenants=config["tenants.most"],
    )
    chosen = open_source(
        config["power.source"],
        root,
        total_rails=config["power.total_rails"],
        watts_per_core=watts_per_core,
        gpu=is_gpu,
        interval=settings.interval,
    )
    try:
        return EnergyService(
            chosen.source,
            make_controller(ControllerSettings(thermal_margin=config["energy.thermal_margin_c"])),
            root,
            TenantStore(Path(config["state.path"]) / "tenants.json"),
            settings,
            file,
            events,
        )
    except (PowerError, InvalidInput, Forbidden) as error:
        if chosen.source is not None:
            chosen.source.close()
        remedy = f"; {error.remedy}" if isinstance(error, PowerError) and error.remedy else ""
        raise ConfigError(f"{error}{remedy}") from error


def check_config(config: Config) -> None:
    """ConfigError for values that do not go together, before anything is opened with them."""
    for key in ("energy.watt_cap_w", "energy.battery_wh"):
        if config[key] and config["power.source"] == "none":
            raise ConfigError(f"{key} is {config[key]:g}, which power.source none cannot keep")
        if config[key] and config["power.source"] == "model" and not config["power.trust_model"]:
            raise ConfigError(
                f"{key} is {config[key]:g}, which power.source model only estimates: choose one "
                "that measures, or power.trust_model = true to limit this estimate"
            )
    if config["power.mode"] and not config["power.switch_modes"]:
        raise ConfigError(
            f"power.mode is {config['power.mode']!r}, which needs power.switch_modes = true"
        )
    if config["server.max_bodies_mb"] < config["server.max_body_mb"]:
        raise ConfigError(
            f"server.max_bodies_mb is {config['server.max_bodies_mb']:g}; it must be at least "
            f"server.max_body_mb, which is {config['server.max_body_mb']:g}"
        )
    _battery_of(config)
    policy_settings(config)
    _check_plugins(config)
    node_name(config)
    for url in config["fleet.peers"]:
        peer_name(url)


def _check_plugins(config: Config) -> None:
    for key, find in (
        ("policies.exit", partial(find_plugin, EXIT_POLICIES)),
        ("policies.dispatch", make_dispatch),
        ("energy.controller", partial(find_plugin, ENERGY_CONTROLLERS)),
    ):
        try:
            find(config[key])
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error.__cause__


def node_name(config: Config) -> str:
    """What a fleet calls this node: by default the host's name."""
    name = config["server.node"] or platform.node() or LOCAL
    try:
        return check_name(name, "server.node")
    except InvalidInput as error:
        raise ConfigError(str(error)) from None


def _battery_of(config: Config) -> Battery | None:
    energy, reserve = config["energy.battery_wh"], config["energy.battery_reserve_wh"]
    minutes = config["energy.battery_minutes"]
    if not energy and not reserve and not minutes:
        return None
    if not energy or not minutes:
        raise ConfigError(
            "energy.battery_wh and energy.battery_minutes go together: what is in the battery, "
            "and how long it is to last"
        )
    if reserve >= energy:
        raise ConfigError(
            f"energy.battery_reserve_wh is {reserve:g}; it must be below energy.battery_wh, "
            f"which is {energy:g}"
        )
    return Battery(3600 * energy, 3600 * reserve, 60 * minutes)


def bundle_folders(config: Config) -> list[Path]:
    """Where ``config`` says that bundles are: the shipped ones, and the user's."""
    return [SHIPPED_BUNDLES, *([Path(config["models.path"])] if config["models.path"] else [])]


def bundle_by_name(config: Config, name: str) -> Path:
    """The folder of the bundle ``name``; ModelNotFound lists those that there are."""
    found: ModelRegistry[Model] = ModelRegistry(lambda: find_bundles(bundle_folders(config)))
    return found.entry(name).path


def find_bundles(folders: Sequence[Path]) -> list[Path]:
    """Every folder in ``folders`` whose name begins with no dot; of two bundles of one name the
    later wins."""
    found: list[Path] = []
    for folder in folders:
        try:
            inside = sorted(folder.iterdir())
        except NotADirectoryError:
            raise ConfigError(f"models.path: {folder} is not a folder") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"models.path: {folder} cannot be read: {reason}") from error
        found += [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    return found


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
    if config["policies.exit"] in ("tuned", "apparate"):
        options["budget"] = config["policies.disagreement"]
    elif config["policies.disagreement"] != DEFAULT_DISAGREEMENT:
        raise ConfigError(
            f"policies.disagreement is {config['policies.disagreement']:g}, but policies.exit is "
            f"{config['policies.exit']!r}; only 'tuned' and 'apparate' have such a budget"
        )
    if config["policies.exit"] == "tuned":
        options["level"] = config["policies.guarantee"]
    if config["policies.exit"] == "apparate" and config["policies.audit_fraction"] == 0:
        raise ConfigError(
            "policies.audit_fraction is 0, but policies.exit is 'apparate', which learns from "
            "audits"
        )
    return PolicySettings(
        exit=config["policies.exit"],
        options=options,
        quantile=config["policies.quantile"],
        planner=PlannerSettings(
            guarantee=config["policies.guarantee"],
            tolerance=config["policies.tolerance"],
            procedure=config["policies.procedure"],
            lossless=config["policies.lossless"],
            least_accuracy=config["energy.min_accuracy"],
        ),
        monitor=MonitorSettings(
            delta=1 - config["policies.guarantee"],
            window=config["policies.feedback_window"],
            audit_fraction=config["policies.audit_fraction"],
        ),
    )
