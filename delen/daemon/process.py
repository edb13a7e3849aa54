"""The daemon as a process: puts the engine, the power source and the API together, and lives."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from delen.daemon.config import Config
from delen.daemon.crashes import CrashLog
from delen.daemon.notify import Notifier
from delen.daemon.open_grpc import open_grpc
from delen.daemon.settings import SWITCH_INTERVAL
from delen.daemon.signals import SignalPipe
from delen.daemon.start_error import as_start_error
from delen.daemon.state_folder import StateFolder
from delen.daemon.traces import Traces, open_traces
from delen.daemon.watchdog import Watchdog
from delen.errors import BackendError, BundleError, ConfigError, MissingExtra, ModelNotFound
from delen.tenants.energy_file import EnergyFile
from delen.version import VERSION
from delen.wire.models import Health

if TYPE_CHECKING:
    from api.oip.grpc_server import GrpcServer
    from delen.daemon.build_runtime import Opened

log = logging.getLogger("delen")
_LOOK_EVERY = 1.0
"""Seconds from one look at what died or hangs to the next."""

_TCP = (socket.AF_INET, socket.AF_INET6)
_STARTED = 0
"""In place of a signal's number: the start has ended, well or not."""

_CLOSING = 5.0
"""Seconds after the drain time in which all is to stop; then the process ends whatever hangs."""

ready_log = logging.getLogger("delen.ready")
ready_log.setLevel(logging.INFO)  # whoever starts the daemon waits for this line at any log.level


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
    """One run of the daemon, from a configuration to a clean stop. ``signals`` are served from the
    first moment on: it starts on a thread of its own."""

    def __init__(self, config: Config, file: Path | None, signals: SignalPipe) -> None:
        self._config = config
        self._file = file
        self._signals = signals
        self._notifier = Notifier(os.environ)
        self._failure: BaseException | None = None
        self._opened: Opened | None = None
        self._grpc: GrpcServer | None = None
        self._traces: Traces | None = None
        self._is_open = self._is_ready = False
        self._doing = "starting"

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then drain. Returns the exit status, which is 1 where a
        thread died or hangs: whoever supervises the daemon is to start it again."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        starting = threading.Thread(target=self._start, name="start", daemon=True)
        try:
            starting.start()
        except RuntimeError as error:
            raise as_start_error(error) from error
        is_well = False
        try:
            is_well = self._serve_signals()
        finally:
            has_stopped = self._stop()
        if not has_stopped or not self._is_ready:  # what loads a model may go on loading it
            logging.shutdown()
            os._exit(0 if has_stopped and is_well else 1)
        return 0 if is_well else 1

    def _open(self) -> None:
        try:
            from api.application import Application
            from api.metrics.requests import Metrics
            from api.policy_views import PolicyNames
            from api.server.connection import Patience
            from api.server.passed import take_passed
            from api.server.server import HttpServer
            from api.views import Service
        except ModuleNotFoundError as error:
            raise MissingExtra(f"{error.name} (for the daemon)", "daemon") from error
        from delen.daemon.build_runtime import node_name, open_runtime
        from delen.daemon.reload import Reloader
        from delen.daemon.start_check import check_start

        config = self._config
        self._passed = take_passed(os.environ)
        hosts = [str(each.getsockname()[0]) for each in self._passed if each.family in _TCP]
        check = partial(check_start, passed=hosts if self._passed else None)
        access = check(config)
        for warning in access.warnings:
            log.warning("%s", warning)
        guard, self._tls = access.guard, access.tls
        self._state = StateFolder(Path(config["state.path"]))
        self._crashes = CrashLog(Path(config["state.path"]))
        self._crashes.watch()
        metrics = Metrics()
        self._traces = traces = open_traces(config, metrics, node_name(config))
        energy_file = EnergyFile(Path(config["state.path"]) / "energy.json")
        self._opened = opened = open_runtime(
            config,
            traces or metrics,
            energy_file=energy_file,
            at_once=True,
            guard=self._crashes,
        )
        self._runtime = opened.runtime
        self._watchdog = Watchdog(self._runtime.health)
        self._reloader = Reloader(
            config, self._file, check, guard, self._tls, opened.runtime, opened.energy
        )
        service = Service(
            runtime=self._runtime,
            energy=opened.energy,
            metrics=metrics,
            guard=guard,
            default_model=config["models.default"],
            max_body=int(config["server.max_body_mb"] * 1e6),
            max_bodies=int(config["server.max_bodies_mb"] * 1e6),
            describe_device=lambda model: asdict(model.costs.profile.device),
            health=self._check_health,
            version=VERSION,
            shared_memory=config["server.shared_memory"],
            tenants=access.tenants,
            policies=PolicyNames(
                config["policies.dispatch"], config["policies.exit"], config["energy.controller"]
            ),
        )
        self._app = Application(service, config["server.threads"])
        self._http = HttpServer(
            self._app,
            config["server.connections"],
            Patience(config["server.head_seconds"], body_rate=config["server.body_rate"]),
            self._tls,
        )
        self._is_open = True

    def _start(self) -> None:
        """Open, load and listen, beside the thread that looks at signals and at what hangs, which
        learns how it ended."""
        try:
            self._open()
            gc.collect()  # before models are there, which may be unloaded
            gc.freeze()  # a full collection over all that stays would hold requests up
            for name in self._config["models.load"]:
                self._load(name)
            assert self._opened is not None
            self._opened.profiler.start()
            if self._runtime.draining:
                return
            addresses = self._listen()
            self._http.start()
            self._watchdog.watch_loop("HTTP", self._http.seconds_behind)
            if self._grpc is not None:
                self._watchdog.watch_loop("gRPC", self._grpc.seconds_behind)
            self._watchdog.watch_threads()
            self._doing = f"ready on {' and '.join(addresses)}"
            ready_log.info("%s", self._doing)
        except BaseException as error:
            self._failure = error
        self._signals.send(_STARTED)

    def _load(self, name: str) -> None:
        """Load the bundle ``name``; one that is damaged is left out, and others are served."""
        assert self._opened is not None
        self._doing = f"loading {name}"
        try:
            self._opened.load(name)
        except ModelNotFound:
            log.error("models.load: %s is left out: its bundle cannot be read", name)
        except (BundleError, BackendError) as error:
            log.error("models.load: %s is left out: %s", name, error)

    def _check_health(self) -> Health:
        now = time.monotonic()
        failing = self._watchdog.problems(now)
        degraded = self._runtime.health.failing(now)
        status = "failing" if failing else "degraded" if degraded else "ok"
        return Health(status, VERSION, (*failing, *degraded))

    def _listen(self) -> list[str]:
        if self._passed:
            return [self._http.listen_on(each) for each in self._passed]
        from api.server.socket_file import SocketFile

        host, port = self._config["server.host"], self._config["server.port"]
        addresses = [self._http.listen_tcp(host, port)]
        path = self._config["server.socket"]
        if path:
            mode, group = self._config["server.socket_mode"], self._config["server.socket_group"]
            address = self._http.listen_unix(SocketFile(path, int(mode, 8), group))
            if address is not None:
                addresses.append(address)
            elif self._config.origins["server.socket"] != "default":
                raise ConfigError(f"server.socket {path}: another daemon answers there")
            else:
                log.warning("another daemon answers at %s: this one serves TCP alone", path)
        self._grpc = open_grpc(self._config, self._app, self._tls)
        if self._grpc is not None:
            addresses.append(self._grpc.url)
        return addresses

    def _serve_signals(self) -> bool:
        """Until a signal ends it, True, or what is wrong lasts, False."""
        is_reload_due, notifier = False, self._notifier
        look_every = min(_LOOK_EVERY, notifier.feeds_every or _LOOK_EVERY)
        while True:
            number = self._signals.wait(look_every)
            if self._is_open and self._is_over():
                return False
            self._report()
            if number in (signal.SIGTERM, signal.SIGINT):
                if self._is_open:
                    self._runtime.start_draining()
                log.info("%s: draining", signal.Signals(number).name)
                return True
            if number == _STARTED:
                if self._failure is not None:
                    raise as_start_error(self._failure) from self._failure
                self._is_ready = True
                notifier.ready(self._doing)
            is_reload_due |= number == signal.SIGHUP
            if is_reload_due and self._is_ready:
                is_reload_due = False
                notifier.reloading()
                self._reloader.reload()
                notifier.ready(self._doing)

    def _is_over(self) -> bool:
        """Whether something is wrong for good. What hangs is left behind before."""
        if self._runtime.leave_hanging(time.monotonic()):
            self._watchdog.watch_threads()
        self._crashes.look(time.monotonic())
        if not self._watchdog.is_over(time.monotonic()):
            return False
        if hung := self._runtime.health.hung_models():
            self._crashes.blame(hung, "it did not return")
        return True

    def _report(self) -> None:
        """Tell systemd how it goes. The watchdog is fed while nothing hangs and no thread has died,
        whether or not there is work."""
        if not self._is_ready:
            self._notifier.starting(self._doing)
            return
        problems = self._watchdog.problems(time.monotonic())
        self._notifier.status("; ".join(problems) or self._doing)
        if not problems:
            self._notifier.feed()

    def _stop(self) -> bool:
        """Whether all ended by itself. What hangs is left to the end of the process."""
        drain = self._reloader.config["server.drain_seconds"] if self._is_ready else 0.0
        signal.alarm(ceil(drain + 4 * _CLOSING))  # where memory is short, no thread may start
        try:
            return self._stop_all()
        finally:
            signal.alarm(0)

    def _stop_all(self) -> bool:
        self._notifier.stopping("answering what was accepted")
        if not self._is_ready:
            return _in_time(self._stop_start, _CLOSING)
        drain = self._reloader.config["server.drain_seconds"]
        has_stopped = _in_time(self._stop_serving, drain + _CLOSING)
        if not has_stopped:
            calls = map(str, self._runtime.health.under_way(time.monotonic()))
            log.critical("what hangs is left behind: %s", "; ".join(calls) or "a thread")
        if self._traces is not None:
            self._traces.close()
        is_closed = _in_time(self._close_energy, _CLOSING)
        log.info("stopped")
        return has_stopped and is_closed

    def _stop_serving(self) -> None:
        if not self._runtime.drain(self._reloader.config["server.drain_seconds"]):
            log.warning("the drain time is over: what still waits is refused")
        assert self._opened is not None
        self._opened.profiler.close()
        self._runtime.close()
        self._opened.close_peers()
        self._http.stop()
        if self._grpc is not None:
            self._grpc.stop()

    def _stop_start(self) -> None:
        """Nobody was served yet, so nothing that is loaded or measured is waited for."""
        if self._is_open:
            self._http.stop()
        self._close_energy()
        log.info("stopped")

    def _close_energy(self) -> None:
        if self._opened is not None:
            self._opened.energy.close()
