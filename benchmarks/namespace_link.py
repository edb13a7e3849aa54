"""Links made by ``tc`` between network namespaces, for whoever may make namespaces.

A process that ``unshare -Urn`` started is alone in the first; the other end of each link is in one
of its own. The rate is a token bucket (tbf) of one packet; delay and loss need netem, which a
kernel may lack.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import time
from pathlib import Path
from types import TracebackType

ENTER = ("unshare", "-Urn")
"""What starts a process in namespaces of its own."""

BURST = 1600
"""Bytes that pass at once where the link was idle: a packet, for tbf passes no parts of one."""

_QUEUE = 1_000_000
"""Bytes that wait where the rate is too low; more are lost."""
_LEAST = 1000.0
"""Bits a second of a link that stands still: tbf has no rate of 0."""
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_NET = 0x40000000
"""``CLONE_NEWNET``"""


def namespace_problem(delay: float = 0.0, loss: float = 0.0) -> str | None:
    """Why there can be no such link here; None where there can."""
    kind = _discipline(1e6, delay, loss)
    try:
        tried = subprocess.run(
            [*ENTER, "tc", "qdisc", "add", "dev", "lo", "root", *kind],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no namespaces and tc here: {error}"
    if tried.returncode:
        return f"{kind[0]} in a namespace: {tried.stderr.strip() or 'refused'}"
    return None


class NamespaceLink:
    """The link, and a namespace behind it; used with ``with`` in a process of ``ENTER``, where
    links of other numbers may be beside it: packets pass from one to the other.

    ``delay`` is in seconds each way. The rate and ``loss``, the share of packets that are lost, are
    of the way there, or back where ``is_back``. ``near`` and ``far`` are the addresses of its ends.
    """

    def __init__(
        self, delay: float = 0.0, loss: float = 0.0, *, number: int = 0, is_back: bool = False
    ) -> None:
        self.near, self.far = f"10.203.{number}.1", f"10.203.{number}.2"
        self._delay = delay
        self._loss = loss
        self._device = f"near{number}"
        self._is_back = is_back

    def __enter__(self) -> NamespaceLink:
        self._holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
        own = Path("/proc/self/ns/net").readlink()
        while self._namespace.readlink() == own:
            time.sleep(0.005)
        device, pid = self._device, str(self._holder.pid)
        _FORWARD.write_text("1")
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", device, "type", "veth", "peer", "name", "far", "netns", pid)
        _run("ip", "addr", "add", f"{self.near}/24", "dev", device)
        _run("ip", "link", "set", device, "up")
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "addr", "add", f"{self.far}/24", "dev", "far")
        self.run("ip", "link", "set", "far", "up")
        self.run("ip", "route", "add", "default", "via", self.near)
        self._limit("add", 1e9)
        if self._delay:
            wait = ["netem", "delay", f"{1e3 * self._delay:g}ms"]
            _run(*self._tc(not self._is_back, "qdisc", "add"), "root", *wait)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._holder.kill()
        self._holder.wait()

    def set_rate(self, bits: float) -> None:
        """Let ``bits`` a second through from now on."""
        self._limit("change", bits)

    def passed(self) -> int:
        """How many bytes it has let through, headers of packets and all."""
        shown = _run(*self._tc(self._is_back, "-s", "-j", "qdisc", "show"))
        return sum(int(each["bytes"]) for each in json.loads(shown))

    def enter(self) -> None:
        """Lead the calling thread to the far end, with the threads that it starts from then on."""
        with self._namespace.open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NET):
                raise OSError(ctypes.get_errno(), f"setns to {self._namespace}")

    @property
    def there(self) -> list[str]:
        """What starts a command at the far end."""
        return ["nsenter", "-t", str(self._holder.pid), "-n"]

    def run(self, *command: str) -> None:
        """Run ``command`` at the far end."""
        _run(*self.there, *command)

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Start ``command`` at the far end."""
        return subprocess.Popen([*self.there, *command], env={**os.environ, **environment})

    @property
    def _namespace(self) -> Path:
        return Path(f"/proc/{self._holder.pid}/ns/net")

    def _limit(self, verb: str, bits: float) -> None:
        kind = _discipline(bits, self._delay, self._loss)
        _run(*self._tc(self._is_back, "qdisc", verb), "root", *kind)

    def _tc(self, at_far_end: bool, *command: str) -> list[str]:
        """``tc`` on the device at one end of the link."""
        before, device = (self.there, "far") if at_far_end else ([], self._device)
        return [*before, "tc", *command, "dev", device]


def _discipline(bits: float, delay: float, loss: float) -> list[str]:
    rate = f"{max(_LEAST, bits):.0f}bit"
    if not delay and not loss:
        return ["tbf", "rate", rate, "burst", str(BURST), "limit", str(_QUEUE)]
    wait, lost = f"{1e3 * delay:g}ms", f"{100 * loss:g}%"
    return ["netem", "rate", rate, "delay", wait, "loss", lost, "limit", str(_QUEUE // 1500)]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout
