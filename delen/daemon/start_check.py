"""What keeps a daemon from starting with a configuration, as far as nothing is opened for it. The
start, SIGHUP and ``delen doctor`` ask for it."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from delen.bundle.manifest import Manifest, read_manifest
from delen.daemon.build_model import exit_maker
from delen.daemon.build_runtime import (
    bundle_folders,
    check_config,
    find_bundles,
    policy_settings,
)
from delen.daemon.config import Config
from delen.daemon.traces import check_traces
from delen.errors import BundleError, ConfigError, InvalidInput, MissingExtra

if TYPE_CHECKING:
    from api.guard import Guard
    from api.server.tls import Tls
    from api.tenant_access import TenantAccess


@dataclass(frozen=True, slots=True)
class Access:
    """Who may do what, and how connections are encrypted. ``warnings`` say who else is let in, and
    who is kept out."""

    tenants: TenantAccess
    guard: Guard
    tls: Tls | None
    warnings: tuple[str, ...]


def check_start(config: Config, passed: Sequence[str] | None = None) -> Access:
    """ConfigError names the file and key, or the variable, with which the daemon does not start;
    MissingExtra what is not installed. ``passed`` are the hosts of sockets that systemd passed,
    None where it passed none."""
    try:
        check_config(config)
        check_traces(config)
        _check_folders(config)
        _check_models(config)
        return _access(config, passed)
    except (ConfigError, InvalidInput) as error:
        raise ConfigError(config.located(str(error))) from error.__cause__


def _check_folders(config: Config) -> None:
    """A state folder is made where there is none, and one that cannot be written costs no more than
    the state."""
    if _is_folder(root := config["power.root"]) is not True:
        raise ConfigError(f"power.root: {root!r} is not a folder")
    if _is_folder(state := config["state.path"]) is False:
        raise ConfigError(f"state.path: {state!r} is not a folder")


def _is_folder(path: str) -> bool | None:
    """None where nothing is seen there."""
    try:
        return stat.S_ISDIR(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return None


def _check_models(config: Config) -> None:
    """Whether the default model and those to be loaded are there, and the exit policy can be made
    for each to be loaded. A bundle that is damaged is left out."""
    folders = bundle_folders(config)
    found: dict[str, Manifest] = {}
    paths = find_bundles(folders)
    for path in paths:
        with suppress(BundleError):
            manifest, _ = read_manifest(path)
            found[manifest.name] = manifest
    make_policy = exit_maker(policy_settings(config))
    to_load = config["models.load"]
    for key, name in (("default", config["models.default"]), *(("load", each) for each in to_load)):
        if name not in found and name not in {path.name for path in paths}:
            known = ", ".join(sorted(found)) or "none"
            raise ConfigError(f"models.{key}: there is no model {name!r}; known: {known}")
    for name in to_load:
        if name in found:
            try:
                make_policy(len(found[name].exits))
            except (ConfigError, InvalidInput) as error:
                key = "policies.conditions" if config["policies.conditions"] else "policies.exit"
                raise ConfigError(f"{key}, for {name}: {error}") from error


def _access(config: Config, passed: Sequence[str] | None) -> Access:
    try:
        from api.guard import Guard
        from api.server.exposure import check_exposure
        from api.server.tls import Tls
        from api.tenant_access import TenantAccess
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{error.name} (for the daemon)", "daemon") from error

    host = config["server.host"]
    tenants = TenantAccess(config["tenants.users"])
    guard = Guard(config["server.token_file"], host, tenants.is_bound)
    tls = Tls.of(config["server.tls_cert"], config["server.tls_key"])
    listens = [host] if passed is None or config["server.grpc_port"] >= 0 else []
    warnings = [
        check_exposure(
            "server",
            each,
            guard.has_token,
            config["server.insecure"],
            "may send requests, and spend any tenant's energy",
        )
        for each in dict.fromkeys([*(passed or ()), *listens])
    ]
    if tls is not None:
        warnings.append(tls.warning())
    return Access(tenants, guard, tls, tuple(each for each in warnings if each is not None))
