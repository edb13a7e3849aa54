"""The hub's configuration: one TOML file."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from api.guard import read_token
from api.server.exposure import check_exposure
from delen.core.bounds import check_name
from delen.core.toml_file import read_toml
from delen.core.typed_reader import read
from delen.errors import ConfigError, InvalidInput
from delen.sdk.http import Endpoint
from delen.wire.fleet import LONGEST_LEASE
from policies.plugins import FLEET_POLICIES, find_plugin

log = logging.getLogger("delen.fleet")

T = TypeVar("T")

PORT = 8010
"""Beside the daemon's 8000 and 8001."""


class _Table(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    pass


class _Node(_Table, frozen=True):
    name: str
    url: str
    token_file: str = ""


class _Fleet(_Table, frozen=True):
    nodes: Annotated[tuple[_Node, ...], Meta(min_length=1, max_length=1000)]
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = PORT
    policy: str = "default"
    period_s: Annotated[float, Meta(ge=0.2, le=1.0)] = 1.0
    lease_s: Annotated[float, Meta(ge=0.5, le=LONGEST_LEASE)] = 3.0
    token_file: str = ""
    insecure: bool = False


class _Log(_Table, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class _File(_Table, frozen=True):
    fleet: _Fleet
    log: _Log = _Log()


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """A daemon: what the hub calls it, where clients and the hub find it, and the token that opens
    its guarded addresses."""

    name: str
    url: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class HubSettings:
    """``period`` is in seconds from one standing of a node to the next, ``lease`` those for which
    directives and routes hold. ``token`` is what clients need for a route, if it is set."""

    nodes: tuple[NodeSettings, ...]
    host: str = "127.0.0.1"
    port: int = PORT
    policy: str = "default"
    period: float = 1.0
    lease: float = 3.0
    token: str | None = None
    log_level: str = "info"
    log_format: str = "text"


def read_settings(file: Path) -> HubSettings:
    """The settings in ``file``; ConfigError names the file and the key that is wrong."""
    document = read_toml(file)
    parsed = _named(file, lambda: read(_File, document, "the file"))
    fleet = parsed.fleet
    if fleet.lease_s < 2 * fleet.period_s:
        raise ConfigError(
            f"{file}: fleet.lease_s is {fleet.lease_s:g}; it must be at least twice "
            f"fleet.period_s, {fleet.period_s:g}"
        )
    try:
        find_plugin(FLEET_POLICIES, fleet.policy)
    except ConfigError as error:
        raise ConfigError(f"{file}: fleet.policy: {error}") from error
    nodes = tuple(_node(node, f"fleet.nodes[{n}]", file) for n, node in enumerate(fleet.nodes))
    for key in ("name", "url"):
        values = [getattr(node, key) for node in nodes]
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(f"{file}: fleet.nodes: the {key} {value!r} is given twice")
    token = _token(fleet.token_file, "fleet.token_file", file)
    _check_exposure(fleet, token is not None, file)
    return HubSettings(
        nodes,
        fleet.host,
        fleet.port,
        fleet.policy,
        fleet.period_s,
        fleet.lease_s,
        token,
        parsed.log.level,
        parsed.log.format,
    )


def _check_exposure(fleet: _Fleet, has_token: bool, file: Path) -> None:
    harm = "may ask where requests go, and change where others' go"
    try:
        warning = check_exposure("fleet", fleet.host, has_token, fleet.insecure, harm)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    if warning is not None:
        log.warning("%s", warning)


def _node(node: _Node, where: str, file: Path) -> NodeSettings:
    token = _token(node.token_file, f"{where}.token_file", file)
    _named(file, lambda: check_name(node.name, f"{where}.name"))
    try:
        Endpoint.of(node.url, token)
    except InvalidInput as error:
        raise ConfigError(f"{file}: {where}.{error}") from None
    return NodeSettings(node.name, node.url.rstrip("/"), token)


def _token(token_file: str, key: str, file: Path) -> str | None:
    return read_token(token_file, f"{file}: {key}") if token_file else None


def _named(file: Path, make: Callable[[], T]) -> T:
    try:
        return make()
    except InvalidInput as error:
        raise ConfigError(f"{file}: {error}") from None
