"""Every key of the configuration: its default, what it means and which values it takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from delen.profile.device import available_cores
from delen.scheduler.backlog import DEFAULT_BACKLOG
from delen.sdk.address import default_socket, default_state

PREFIX = "DELEN_"
"""Of the variables that override keys."""

DEFAULT_DISPATCH = "value"
"""The dispatch policy that decides where none is named, or where another one fails."""

DEFAULT_DISAGREEMENT = 0.01

SWITCH_INTERVAL = 0.002
"""Seconds after which a thread that computes in Python lets another run, where the engine serves.
With the interpreter's own 5 ms a lane may wait for as long as several segments take; with less
than this, threads are interrupted while they hold locks that all others need
(docs/decisions/serving.md).
"""

POWER_SOURCES = (
    "auto", "ina3221", "ina3221x", "ina238", "jtop", "nvml", "rapl", "model", "none",
)  # fmt: skip

Check = Callable[[Any], str | None]
"""Says what is wrong with a value of the right type, or None."""


def _one_of(*choices: str) -> Check:
    return lambda value: None if value in choices else f"must be one of {', '.join(choices)}"


def _between(low: float, high: float) -> Check:
    return lambda value: None if low <= value <= high else f"must be from {low:g} to {high:g}"


def _distinct(names: list[str]) -> str | None:
    return None if len(set(names)) == len(names) else "must name each one once"


def _named(value: str) -> str | None:
    return None if value.strip() else "must not be empty"


def _users(pairs: list[str]) -> str | None:
    is_right = all(user and tenant for user, _, tenant in (pair.partition("=") for pair in pairs))
    return None if is_right else 'must be a list of "USER=TENANT"'


def _anything(value: Any) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Setting:
    """One key: its type is that of its default. ``reloads`` says whether SIGHUP changes it."""

    section: str
    key: str
    default: Any
    help: str
    check: Check = _anything
    reloads: bool = False

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"{PREFIX}{self.section}__{self.key}".upper()


SETTINGS = (
    Setting("server", "host", "127.0.0.1", "address of the TCP listener", _named),
    Setting("server", "port", 8000, "its port; 0 takes a free one", _between(0, 65535)),
    Setting("server", "socket", default_socket(), "Unix socket; empty for none"),
    Setting("server", "socket_mode", "0660", "its permissions", _one_of("0600", "0660", "0666")),
    Setting("server", "socket_group", "", "its group; empty for the daemon's own"),
    Setting(
        "server",
        "grpc_port",
        8001,
        "for gRPC, where the extra grpc is installed; 0 takes a free one, -1 none",
        _between(-1, 65535),
    ),
    Setting(
        "server",
        "shared_memory",
        False,
        "whether clients of this machine may use it over TCP and gRPC, too",
    ),
    Setting("server", "node", "", "this node's name in a fleet; empty for the host's"),
    Setting("server", "token_file", "", "file with the token that guards load and unload"),
    Setting("server", "tls_cert", "", "file with a certificate: TCP is served by HTTPS alone"),
    Setting("server", "tls_key", "", "file with its key"),
    Setting("server", "insecure", False, "whether other machines may be served without a token"),
    Setting(
        "server",
        "threads",
        16,
        "that answer all addresses but those for inputs",
        _between(1, 1024),
    ),
    Setting(
        "server",
        "head_seconds",
        5.0,
        "for a request's whole head, and until its body has to keep its rate",
        _between(0.1, 3600),
    ),
    Setting(
        "server",
        "body_rate",
        1000.0,
        "bytes a second that a body must have on average",
        _between(1, 1e9),
    ),
    Setting(
        "server",
        "connections",
        2000,
        "open at once; further ones are answered 503",
        _between(1, 100_000),
    ),
    Setting("server", "max_body_mb", 32.0, "largest request body", _between(0.001, 2048)),
    Setting(
        "server",
        "max_bodies_mb",
        256.0,
        "for all request bodies that are in memory at once",
        _between(0.001, 1e6),
    ),
    Setting(
        "server",
        "max_backlog_seconds",
        DEFAULT_BACKLOG,
        "predicted work that may wait, by tenants' shares",
        _between(0.001, 3600),
    ),
    Setting(
        "server", "drain_seconds", 10.0, "time to answer after SIGTERM", _between(0, 3600), True
    ),
    Setting("models", "path", "", "folder of bundles, beside the shipped ones"),
    Setting("models", "default", "cifar10-resnet", "the model of /v1/infer"),
    Setting("models", "load", ["cifar10-resnet"], "models loaded at start"),
    Setting(
        "models",
        "memory_mb",
        0.0,
        "for the segments in memory; with it, models are loaded on demand; 0 for no limit",
        _between(0, 1e6),
    ),
    Setting(
        "device",
        "backend",
        "auto",
        "what segments run on",
        _one_of("auto", "cpu", "cuda", "tensorrt"),
    ),
    Setting(
        "device",
        "threads",
        max(1, available_cores() - 1),
        "threads of each batch that runs; by default one core is left to HTTP",
        _between(1, 1024),
    ),
    Setting(
        "device",
        "instances",
        1,
        "batches that may run at once, each on threads of its own; 0 decides by the cores",
        _between(0, 64),
    ),
    Setting(
        "device",
        "hang_seconds",
        30.0,
        "after which a segment that has not returned is left behind; or 20 times its prediction",
        _between(0.1, 3600),
    ),
    Setting("power", "source", "auto", "where joules come from", _one_of(*POWER_SOURCES)),
    Setting("power", "root", "/", "folder that stands for / where the device is looked up"),
    Setting(
        "power",
        "watts_per_core",
        4.0,
        "dynamic watts of a busy core, for the model",
        _between(0.001, 1000),
    ),
    Setting(
        "power",
        "total_rails",
        [],
        "rails that sum to the total, on an unknown board",
        _distinct,
    ),
    Setting("power", "interval_ms", 50.0, "between two readings", _between(5, 10_000)),
    Setting(
        "power",
        "window_seconds",
        1.0,
        "over which measured energy is shared out among requests",
        _between(1, 60),
    ),
    Setting(
        "power",
        "receipts",
        10_000,
        "answers whose receipts can be asked for again",
        _between(0, 10_000_000),
    ),
    Setting("power", "mode", "", "power mode to switch to at start, by name or number"),
    Setting("power", "switch_modes", False, "whether the power mode may be switched"),
    Setting(
        "power",
        "trust_model",
        False,
        "whether a watt cap or a battery may rest on the source 'model'",
    ),
    Setting("energy", "controller", "price", "energy controller, by entry point"),
    Setting(
        "energy",
        "min_accuracy",
        0.0,
        "expected accuracy below which no energy is saved",
        _between(0, 1),
    ),
    Setting(
        "energy",
        "watt_cap_w",
        0.0,
        "for what the power source measures; 0 for none",
        _between(0, 100_000),
        True,
    ),
    Setting("energy", "battery_wh", 0.0, "in the battery at start; 0 for none", _between(0, 1e6)),
    Setting("energy", "battery_reserve_wh", 0.0, "to be left in it", _between(0, 1e6)),
    Setting("energy", "battery_minutes", 0.0, "that it is to last", _between(0, 1e6)),
    Setting(
        "energy",
        "thermal_margin_c",
        5.0,
        "below a trip point from which on power is held back; 0 for none",
        _between(0, 100),
    ),
    Setting(
        "energy",
        "self_profile",
        False,
        "whether the daemon measures profiles of energy by itself while it is idle",
    ),
    Setting("policies", "exit", "bounds", "exit policy, by entry point"),
    Setting("policies", "dispatch", DEFAULT_DISPATCH, "dispatch policy, by entry point"),
    Setting("policies", "conditions", "", "condition file of the policy 'conditions'"),
    Setting("policies", "quantile", 0.99, "at which latencies are predicted", _between(0.5, 0.99)),
    Setting("policies", "guarantee", 0.95, "level at which floors hold", _between(0.5, 0.9999)),
    Setting(
        "policies",
        "tolerance",
        0.005,
        "accuracy that a request without bounds may lose",
        _between(0, 0.5),
    ),
    Setting(
        "policies",
        "procedure",
        "ltt",
        "certifies thresholds: Learn then Test, or upper confidence bounds",
        _one_of("ltt", "ucb"),
    ),
    Setting(
        "policies",
        "lossless",
        "accuracy",
        "what a request without bounds keeps to within the tolerance",
        _one_of("accuracy", "agreement"),
    ),
    Setting(
        "policies",
        "disagreement",
        DEFAULT_DISAGREEMENT,
        "share of answers that may differ from the deepest exit's under 'tuned' and 'apparate'",
        _between(0.0001, 0.5),
    ),
    Setting(
        "policies",
        "feedback_window",
        10_000,
        "answers that are remembered for labels posted back",
        _between(0, 10_000_000),
    ),
    Setting(
        "policies",
        "audit_fraction",
        0.01,
        "share of confident stops that is run on to the deepest exit; 0 for none",
        _between(0, 1),
    ),
    Setting(
        "tenants", "users", [], "USER=TENANT for each user whose apps are bound to tenants", _users
    ),
    Setting(
        "tenants",
        "most",
        1000,
        "counted by name, further ones together; so many may have settings",
        _between(1, 100_000),
    ),
    Setting(
        "fleet",
        "peers",
        [],
        "URLs of daemons that go on with jobs whose floors cannot be kept here",
        _distinct,
    ),
    Setting(
        "traces",
        "endpoint",
        "",
        "OpenTelemetry collector, such as http://127.0.0.1:4318; empty for no traces",
    ),
    Setting("traces", "share", 1.0, "of all requests that is traced", _between(0, 1)),
    Setting("state", "path", default_state(), "folder for profiles and tenants' budgets", _named),
    Setting(
        "log", "level", "info", "least severe lines", _one_of("debug", "info", "warning", "error"),
        True,
    ),
    Setting("log", "format", "text", "of log lines", _one_of("text", "json"), True),
)  # fmt: skip
