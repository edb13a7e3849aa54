"""SIGHUP: what can change in a running daemon changes, and what cannot is named."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from delen.core.energy_status import PowerChanges
from delen.daemon.config import Config, read_config
from delen.daemon.logs import configure_logs
from delen.daemon.settings import SETTINGS
from delen.energy.service import EnergyService
from delen.engine.runtime import Runtime
from delen.errors import DelenError

if TYPE_CHECKING:
    from api.guard import Guard
    from api.server.tls import Tls

log = logging.getLogger("delen")


class Reloader:
    """Reads ``file`` and the environment again. ``config`` is what is in force; ``check`` raises a
    DelenError for one with which the next start would fail."""

    def __init__(
        self,
        config: Config,
        file: Path | None,
        check: Callable[[Config], object],
        guard: Guard,
        tls: Tls | None,
        runtime: Runtime,
        energy: EnergyService,
    ) -> None:
        self.config = config
        self._file = file
        self._check = check
        self._guard = guard
        self._tls = tls
        self._runtime = runtime
        self._energy = energy

    def reload(self) -> None:
        """Take over what can change, and log what cannot. All stays as it was where anything is
        wrong."""
        before = self.config
        try:
            new = read_config(self._file, os.environ)
            self._check(new)
            changed = [s for s in SETTINGS if before[s.name] != new[s.name]]
            token, bundles = self._guard.read(), self._runtime.store.scan()
            tls = None if self._tls is None else self._tls.read()
            if new["energy.watt_cap_w"] != before["energy.watt_cap_w"]:
                watts = new["energy.watt_cap_w"] or None
                self._energy.set_limits(PowerChanges(watt_cap=watts))
        except DelenError as error:
            log.error("SIGHUP: nothing reloaded, all stays as it was: %s", error)
            return
        except Exception:
            log.exception("SIGHUP: nothing reloaded, all stays as it was")
            return
        self._guard.use(token)
        if self._tls is not None and tls is not None:
            self._tls.use(tls)
            if (warning := self._tls.warning()) is not None:
                log.warning("SIGHUP: %s", warning)
        self._runtime.store.use(bundles)
        values = dict(before.values)
        values.update((s.name, new[s.name]) for s in changed if s.reloads)
        origins = dict(before.origins)
        origins.update((s.name, new.origins[s.name]) for s in SETTINGS if s.reloads)
        self.config = Config(values, origins)
        for setting in changed:
            if setting.reloads:
                log.info("SIGHUP: %s is now %s", setting.name, json.dumps(values[setting.name]))
            else:
                log.warning("SIGHUP: %s changes at a restart only", setting.name)
        configure_logs(values["log.level"], values["log.format"])
        certificate = "" if tls is None else "the certificate "
        log.info(
            "SIGHUP: reloaded the configuration, the token, %sand the list of bundles", certificate
        )
