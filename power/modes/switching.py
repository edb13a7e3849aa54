"""Changes the power mode, where that is allowed and needs no reboot, and puts it back."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from pathlib import Path

from delen.errors import Forbidden, InvalidInput, PowerError
from power.modes.modes import PowerMode, read_mode
from power.modes.nvpmodel import Conf, Model, not_in_force, read_conf

log = logging.getLogger("delen.power")

PROGRAM = "usr/sbin/nvpmodel"

_LOOK_AGAIN = 0.02


class ModeSwitcher:
    """Switches nvpmodel's modes of the device under ``root``, if ``allowed``.

    A switch counts once the device shows it: nvpmodel's status, and the cores and clocks that the
    mode sets. It is waited for up to ``timeout`` seconds.
    """

    def __init__(self, root: Path, allowed: bool, timeout: float = 10.0) -> None:
        self._root = root
        self._allowed = allowed
        self._timeout = timeout
        self._lock = threading.Lock()
        self._found: int | None = None
        self._set: int | None = None

    def modes(self) -> tuple[PowerMode, ...]:
        """The modes that this device has, none where it has no nvpmodel."""
        conf = read_conf(self._root)
        return () if conf is None else tuple(PowerMode(m.id, m.name) for m in conf.models)

    def switch(self, wanted: str | int) -> PowerMode:
        """Switch to the mode of this name (its case and a leading ``MODE_`` do not matter) or id.

        Forbidden where that is not allowed, InvalidInput where there is no such mode; PowerError
        where it takes a reboot, or did not come about: the mode is then what it was, except in the
        last case.
        """
        if not self._allowed:
            raise Forbidden("switching power modes is not allowed: set power.switch_modes = true")
        with self._lock:
            conf = self._conf()
            target = _find(conf, wanted)
            now = read_mode(self._root)
            if now.id == target.id and not_in_force(self._root, conf, target) is None:
                return now
            self._refuse_unsafe(conf, target, now)
            if self._found is None:
                self._found = now.id
            self._run(target)
            self._set = target.id
            self._await(conf, target)
            log.info("power mode switched from %s to %s", now.name, target.name)
            return read_mode(self._root)

    def restore(self) -> None:
        """Put back the mode that the first switch found, unless somebody else has switched since.

        PowerError as of ``switch``.
        """
        with self._lock:
            if self._set is None:
                return
            conf, now = self._conf(), read_mode(self._root)
            found = conf.model(self._found)
            if found is None or now.id != self._set or now.id == found.id:
                return
            self._refuse_unsafe(conf, found, now)
            self._run(found)
            self._set = None
            self._await(conf, found)
            log.info("power mode put back to %s", found.name)

    def _conf(self) -> Conf:
        conf = read_conf(self._root)
        if conf is None:
            raise PowerError("this device has no power modes: there is no /etc/nvpmodel.conf")
        return conf

    def _refuse_unsafe(self, conf: Conf, target: Model, now: PowerMode) -> None:
        current = conf.model(now.id)
        if current is None:
            raise PowerError(
                f"the current power mode is unknown, so {target.name} may need a reboot",
                "let delen read /var/lib/nvpmodel/status",
            )
        if current.gating != target.gating:
            raise PowerError(
                f"the power mode {target.name} needs a reboot: it powers other parts of the GPU "
                f"than {current.name}",
                f"run: sudo nvpmodel -m {target.id}",
            )
        if now.jetson_clocks:
            raise PowerError(
                "jetson_clocks holds the clocks, and a switch would end this permanently",
                "run: sudo jetson_clocks --restore",
            )

    def _run(self, target: Model) -> None:
        program = self._root / PROGRAM
        command = [str(program), "-m", str(target.id)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,  # it asks whether to reboot; nobody says yes
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PowerError(f"nvpmodel did not end within {self._timeout:g} s") from None
        except OSError as error:
            raise PowerError(f"{program} cannot be run: {error.strerror}") from None
        if "reboot" in done.stdout.lower():
            raise PowerError(
                f"the power mode {target.name} needs a reboot",
                f"run: sudo nvpmodel -m {target.id}",
            )
        if done.returncode:
            said = " ".join(done.stdout.split())[-200:] or "no output"
            raise PowerError(
                f"nvpmodel failed with status {done.returncode}: {said}",
                "nvpmodel works for root only",
            )

    def _await(self, conf: Conf, target: Model) -> None:
        until = time.monotonic() + self._timeout
        while True:
            differs = self._differs(conf, target)
            if differs is None:
                return
            if time.monotonic() > until:
                raise PowerError(
                    f"the power mode {target.name} is not in force after {self._timeout:g} s: "
                    f"{differs}",
                    "in a container nvpmodel cannot set clocks; switch the mode on the host",
                )
            time.sleep(_LOOK_AGAIN)

    def _differs(self, conf: Conf, target: Model) -> str | None:
        now = read_mode(self._root)
        if now.id != target.id:
            return f"it is still {now.name}"
        return not_in_force(self._root, conf, target)


def _find(conf: Conf, wanted: str | int) -> Model:
    for model in conf.models:
        if (
            wanted == model.id
            or str(wanted) == str(model.id)
            or _plain(wanted) == _plain(model.name)
        ):
            return model
    known = ", ".join(f"{model.name} ({model.id})" for model in conf.models)
    raise InvalidInput(f"this device has no power mode {wanted!r}; it has {known}", "mode")


def _plain(name: str | int) -> str:
    return str(name).upper().removeprefix("MODE_")
