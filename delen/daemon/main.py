"""``delen-daemon``: puts the engine, the power source and the API together, and lives."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from delen.core.energy_status import PowerChanges
from delen.daemon.config import Config, read_config
from delen.daemon.entry_point import add_debug, run_command
from delen.daemon.logs import configure_logs
from delen.daemon.open_grpc import open_grpc
from delen.daemon.settings import SETTINGS, SWITCH_INTERVAL
from delen.daemon.watchdog import Watchdog
from delen.errors import ConfigError, DelenError, MissingExtra
from delen.tenants.energy_file import EnergyFile
from delen.version import VERSION
from delen.wire.models import Health

if TYPE_CHECKING:
    from api.oip.grpc_server import GrpcServer

log = logging.getLogger("delen")
_LOOK_EVERY = 1.0
"""Seconds from one look at what died or hangs to the next."""

_FAILED = 0
"""In place of a signal's number: the start has failed."""

_CLOSING = 5.0
"""Seconds after the drain time in which all is to stop; then the process ends whatever hangs."""

ready_log = logging.getLogger("delen.ready")
ready_log.setLevel(logging.INFO)  # whoever starts the daemon waits for this line at any log.level


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of ``delen-daemon``: 0 after a clean stop, 1 on failure, 2 on wrong usage."""
    return run_command("delen-daemon", arguments, _parser().parse_args, _run)


def _run(options: argparse.Namespace) -> int:
    config = read_config(options.config, os.environ)
    if options.print_config:
        sys.stdout.write(config.to_toml())
        return 0
    configure_logs(config["log.level"], config["log.format"])
    return Daemon(config, options.config).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="delen-daemon",
        description="Serve multi-exit networks under per-request bounds.",
        epilog="example: delen-daemon --config /etc/delen/delen.toml",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML configuration")
    parser.add_argument(
        "--print-config",
        action="store_true",
        help="print what is in force and where each value comes from, and end",
    )
    parser.add_argument("--version", action="version", version=f"delen {VERSION}")
    add_debug(parser)
    return parser


def _catch_signals() -> tuple[int, int]:
    """The ends of a pipe from which the number of each signal can be read, a byte each, and into
    which they are written.

    A burst of signals reaches other threads, too, and then wakes no main thread that waits for a
    lock; a pipe wakes it always.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    return reading, writing


def _in_time(end: Callable[[], None], seconds: float) -> bool:
    """Whether ``end`` returns within ``seconds``."""
    has_ended = threading.Event()

    def run() -> None:
        try:
            end()
        except Exception:
            log.exception("stopping failed")
            return
        has_ended.set()

    thread = threading.Thread(target=run, name="delen-stop", daemon=True)
    thread.start()
    thread.join(seconds)
    return has_ended.is_set()


class Daemon:
    """One run of the daemon, from a configuration to a clean stop."""

    def __init__(self, config: Config, file: Path | None) -> None:
        self._config = config
        self._file = file
        self._failure: BaseException | None = None

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain. Returns the exit status, which is 1 where a
        thread died or hangs: whoever supervises the daemon is to start it again."""
        signals, news = _catch_signals()
        sys.setswitchinterval(SWITCH_INTERVAL)
        self._open()
        gc.collect()  # before models are there, which may be unloaded
        gc.freeze()  # a full collection over all that stays would hold requests up
        starting = threading.Thread(target=self._start, args=(news,), name="start", daemon=True)
        try:
            starting.start()
            is_well = self._serve_signals(signals)
        finally:
            has_stopped = self._stop()
        if not has_stopped:
            logging.shutdown()
            os._exit(1)
        return 0 if is_well else 1

    def _open(self) -> None:
        try:
            from api.application import Application
            from api.guard import Guard
            from api.metrics.requests import Metrics
            from api.server.connection import Patience
            from api.server.passed import take_passed
            from api.server.server import HttpServer
            from api.views import Service
        except ModuleNotFoundError as error:
            raise MissingExtra(f"{error.name} (for the daemon)", "daemon") from error
        from delen.daemon.build_runtime import open_runtime

        config = self._config
        self._passed = take_passed(os.environ)
        self._metrics = Metrics()
        energy_file = EnergyFile(Path(config["state.path"]) / "energy.json")
        self._opened = open_runtime(config, self._metrics, energy_file=energy_file)
        self._runtime = self._opened.runtime
        self._watchdog = Watchdog(self._runtime.health)
        self._guard = Guard(config["server.token_file"])
        service = Service(
            runtime=self._runtime,
            energy=self._opened.energy,
            metrics=self._metrics,
            guard=self._guard,
            default_model=config["models.default"],
            max_body=int(config["server.max_body_mb"] * 1e6),
            max_bodies=int(config["server.max_bodies_mb"] * 1e6),
            describe_device=lambda model: asdict(model.costs.profile.device),
            health=self._check_health,
            version=VERSION,
            shared_memory=config["server.shared_memory"],
        )
        self._app = Application(service, config["server.threads"])
        self._grpc: GrpcServer | None = None
        self._http = HttpServer(
            self._app,
            config["server.connections"],
            Patience(config["server.head_seconds"], body_rate=config["server.body_rate"]),
        )

    def _start(self, news: int) -> None:
        """Load and listen, beside the thread that looks at signals and at what hangs. The number 0
        tells that thread of a failure."""
        try:
            for name in self._config["models.load"]:
                self._opened.load(name)
            self._opened.profiler.start()
            if self._runtime.draining:
                return
            addresses = self._listen()
            self._http.start()
            self._watchdog.watch_threads()
            ready_log.info("ready on %s", " and ".join(addresses))
        except BaseException as error:
            self._failure = error
            os.write(news, bytes([_FAILED]))

    def _check_health(self) -> Health:
        failing = self._watchdog.problems(time.monotonic())
        degraded = self._runtime.health.failing()
        status = "failing" if failing else "degraded" if degraded else "ok"
        return Health(status, VERSION, (*failing, *degraded))

    def _listen(self) -> list[str]:
        if self._passed:
            return [self._http.listen_on(each) for each in self._passed]
        host, port = self._config["server.host"], self._config["server.port"]
        addresses = [self._http.listen_tcp(host, port)]
        path = self._config["server.socket"]
        if path:
            address = self._http.listen_unix(path)
            if address is not None:
                addresses.append(address)
            elif self._config.origins["server.socket"] != "default":
                raise ConfigError(f"server.socket {path}: another daemon answers there")
            else:
                log.warning("another daemon answers at %s: this one serves TCP alone", path)
        self._grpc = open_grpc(self._config, self._app)
        if self._grpc is not None:
            addresses.append(self._grpc.url)
        return addresses

    def _serve_signals(self, signals: int) -> bool:
        """Until a signal ends it, True, or what is wrong lasts, False."""
        while True:
            readable, _, _ = select.select([signals], [], [], _LOOK_EVERY)
            if self._watchdog.is_over(time.monotonic()):
                return False
            if not readable:
                continue
            number = os.read(signals, 1)[0]
            if number == _FAILED and self._failure is not None:
                raise self._failure
            if number != signal.SIGHUP:
                self._runtime.start_draining()
                log.info("%s: draining", signal.Signals(number).name)
                return True
            self._reload()

    def _reload(self) -> None:
        """Take over what can change in a running daemon, and say what cannot. All stays as it was
        where anything is wrong."""
        from delen.daemon.build_runtime import check_config

        before = self._config
        try:
            new = read_config(self._file, os.environ)
            check_config(new)
            changed = [s for s in SETTINGS if before[s.name] != new[s.name]]
            token, bundles = self._guard.read(), self._runtime.store.scan()
            if new["energy.watt_cap_w"] != before["energy.watt_cap_w"]:
                watts = new["energy.watt_cap_w"] or None
                self._opened.energy.set_limits(PowerChanges(watt_cap=watts))
        except DelenError as error:
            log.error("SIGHUP: nothing reloaded: %s", error)
            return
        except Exception:
            log.exception("SIGHUP: nothing reloaded")
            return
        self._guard.use(token)
        self._runtime.store.use(bundles)
        values = dict(before.values)
        values.update((s.name, new[s.name]) for s in changed if s.reloads)
        origins = dict(before.origins)
        origins.update((s.name, new.origins[s.name]) for s in SETTINGS if s.reloads)
        self._config = Config(values, origins)
        for setting in changed:
            if setting.reloads:
                log.info("SIGHUP: %s is now %s", setting.name, json.dumps(values[setting.name]))
            else:
                log.warning("SIGHUP: %s changes at a restart only", setting.name)
        configure_logs(values["log.level"], values["log.format"])
        log.info("SIGHUP: reloaded the configuration, the token and the list of bundles")

    def _stop(self) -> bool:
        """Whether all ended by itself. What hangs is left to the end of the process."""
        drain = self._config["server.drain_seconds"]
        has_stopped = _in_time(self._stop_serving, drain + _CLOSING)
        if not has_stopped:
            calls = map(str, self._runtime.health.under_way(time.monotonic()))
            log.critical("what hangs is left behind: %s", "; ".join(calls) or "a thread")
        is_closed = _in_time(self._opened.energy.close, _CLOSING)
        log.info("stopped")
        return has_stopped and is_closed

    def _stop_serving(self) -> None:
        if not self._runtime.drain(self._config["server.drain_seconds"]):
            log.warning("the drain time is over: what still waits is refused")
        self._opened.profiler.close()
        self._runtime.close()
        self._opened.close_peers()
        self._http.stop()
        if self._grpc is not None:
            self._grpc.stop()


if __name__ == "__main__":
    raise SystemExit(main())
