"""Reads a site from a TOML file; what is wrong is named by file and key."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from math import inf
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from delen.core.typed_reader import read
from delen.errors import ConfigError, DelenError, TraceError
from delen.profile.profile import Profile
from delen.profile.reader import load_profile
from delen.simulate.fleet.points import node_model
from delen.simulate.fleet.site import (
    LARGEST,
    ClientSettings,
    HubSettings,
    NodeModel,
    NodeSettings,
    Place,
    Site,
)
from delen.simulate.streams.bandwidth import constant, read_bandwidth
from delen.simulate.streams.link import LinkSettings
from policies.plugins import make_controller

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # the same library, by its earlier name

MS = 1e-3
T = TypeVar("T")

Above = Annotated[float, msgspec.Meta(gt=0, le=1e9)]
AtLeast = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Pixels = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Spans = tuple[tuple[AtLeast, AtLeast], ...]


class _Size(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    profile: str
    payload_bytes: Above
    pixels: tuple[Pixels, Pixels] | None = None


class _Model(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    sizes: tuple[_Size, ...]
    accuracies: tuple[Share, ...] | None = None


class _Node(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    models: tuple[_Model, ...]
    speed: Above = 1.0
    energy: AtLeast = 1.0
    noise: AtLeast = 0.02
    price: AtLeast = 0.0
    price_per_joule: AtLeast = 0.0
    down: Spans = ()
    slow: tuple[tuple[AtLeast, AtLeast, Above], ...] = ()
    clock_s: float = 0.0


class _Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    local: tuple[str, ...] = ()
    delays_ms: dict[str, Any] = msgspec.field(default_factory=dict)
    trace: str | None = None
    mbps: AtLeast | None = None
    jitter_ms: AtLeast = 0.0
    loss: AtLeast = 0.0
    variation: AtLeast = 0.0
    fades: AtLeast = 0.0


class _Move(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    at_s: AtLeast
    place: str


class _Client(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    name: str
    model: str
    fps: Above
    deadline_ms: Above
    place: str
    count: Count = 1
    tenant: str = "default"
    min_accuracy: Share = 0.0
    from_s: AtLeast = 0.0
    until_s: Above | None = None
    moves: tuple[_Move, ...] = ()
    controller: str = LARGEST


class _Hub(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    period_s: Above = 1.0
    standing_s: Above = 1.0
    delay_ms: AtLeast = 5.0
    down: Spans = ()


class _Site(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    seconds: Above
    nodes: tuple[_Node, ...]
    places: tuple[_Place, ...]
    clients: tuple[_Client, ...]
    hub: _Hub = _Hub()


def read_site(file: Path) -> Site:
    """The site in ``file``; TraceError names the file and the key that is wrong. Paths in it are
    relative to its folder."""
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
        return _Reader(file.parent).site(read(_Site, document, "the file"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TraceError(f"{file}: it cannot be read as TOML: {error}") from error
    except DelenError as error:
        raise TraceError(f"{file}: {error}") from error


class _Reader:
    """Makes settings of what was read; what does not fit together is named by its key."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def site(self, site: _Site) -> Site:
        nodes = [self._node(node) for node in site.nodes]
        _check_names("nodes", [node.name for node in nodes])
        places = [self._place(place, {node.name for node in nodes}) for place in site.places]
        _check_names("places", [place.name for place in places])
        models = {model.served.name for node in nodes for model in node.models}
        known = {place.name for place in places}
        clients = [each for client in site.clients for each in _clients(client, known, models)]
        _check_names("clients", [client.name for client in clients])
        hub = site.hub
        return Site(
            site.seconds,
            tuple(nodes),
            {place.name: place for place in places},
            tuple(clients),
            _made(
                "hub",
                lambda: HubSettings(hub.period_s, hub.standing_s, MS * hub.delay_ms, hub.down),
            ),
        )

    def _node(self, node: _Node) -> NodeSettings:
        where = f"nodes.{node.name}"
        models = tuple(self._model(model, node, f"{where}.models") for model in node.models)
        _check_names(f"{where}.models", [model.served.name for model in models])
        return _made(
            where,
            lambda: NodeSettings(
                node.name,
                models,
                node.noise,
                node.price,
                node.price_per_joule,
                node.down,
                node.slow,
                node.clock_s,
            ),
        )

    def _model(self, model: _Model, node: _Node, models: str) -> NodeModel:
        where = f"{models}.{model.name}"
        if not model.sizes:
            raise ConfigError(f"{where}: sizes is empty")
        sizes = [
            (each.pixels, each.payload_bytes, self._profile(each, where)) for each in model.sizes
        ]
        return _made(
            where, lambda: node_model(model.name, sizes, model.accuracies, node.speed, node.energy)
        )

    def _profile(self, size: _Size, where: str) -> Profile:
        return _made(f"{where}: profile", lambda: load_profile(self._folder / size.profile))

    def _place(self, place: _Place, nodes: set[str]) -> Place:
        where = f"places.{place.name}"
        _check_known(f"{where}: local", place.local, nodes, "nodes")
        _check_known(f"{where}: delays_ms", place.delays_ms, nodes, "nodes")
        if both := sorted(set(place.local) & set(place.delays_ms)):
            raise ConfigError(f"{where}: {both[0]!r} is in local and in delays_ms")
        if not place.local and not place.delays_ms:
            raise ConfigError(f"{where}: it reaches no node; name some in local or delays_ms")
        if place.delays_ms and (place.trace is None) == (place.mbps is None):
            raise ConfigError(f"{where}: one of trace and mbps must be given")
        if place.trace is None:
            bandwidth = constant(place.mbps or 0.0)
        else:
            trace = self._folder / place.trace
            bandwidth = _made(f"{where}: trace", lambda: read_bandwidth(trace))
        delays: dict[str, float] = {
            node: MS * read(AtLeast, delay, f"{where}: delays_ms.{node}")
            for node, delay in place.delays_ms.items()
        }
        uplink = _made(
            where,
            lambda: LinkSettings(
                bandwidth,
                min(delays.values(), default=0.0),
                MS * place.jitter_ms,
                place.loss,
                variation=place.variation,
                fades=place.fades,
            ),
        )
        return Place(place.name, uplink, delays, tuple(dict.fromkeys(place.local)))


def _clients(client: _Client, places: set[str], models: set[str]) -> Iterator[ClientSettings]:
    where = f"clients.{client.name}"
    reached = [client.place, *(move.place for move in client.moves)]
    _check_known(f"{where}: place", reached, places, "places")
    _check_known(f"{where}: model", [client.model], models, "models of nodes")
    if client.until_s is not None and client.until_s <= client.from_s:
        raise ConfigError(f"{where}: until_s is {client.until_s:g}; it must be above from_s")
    if client.controller != LARGEST:
        _made(f"{where}: controller", lambda: make_controller(client.controller))
    for number in range(client.count):
        yield ClientSettings(
            name=client.name if client.count == 1 else f"{client.name}-{number}",
            model=client.model,
            fps=client.fps,
            deadline=MS * client.deadline_ms,
            place=client.place,
            tenant=client.tenant,
            min_accuracy=client.min_accuracy,
            start=client.from_s,
            end=inf if client.until_s is None else client.until_s,
            moves=tuple((move.at_s, move.place) for move in client.moves),
            controller=client.controller,
        )


def _check_names(where: str, names: list[str]) -> None:
    if not names:
        raise ConfigError(f"{where} is empty")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: the name {name!r} is given twice")


def _check_known(where: str, names: Iterable[str], known: set[str], what: str) -> None:
    for name in names:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{where} names {name!r}; {what}: {listed}")


def _made(where: str, make: Callable[[], T]) -> T:
    try:
        return make()
    except (DelenError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
