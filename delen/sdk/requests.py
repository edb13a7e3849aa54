"""The calls that both clients make: how they are built, and how their answers are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from types import NoneType
from typing import Any
from urllib.parse import quote

import httpx

from delen.core.bounds import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Bounds,
    Options,
    check_cap,
    check_integer,
    check_name,
)
from delen.core.energy_status import (
    UNCHANGED,
    Battery,
    Budget,
    PowerChanges,
    TenantChanges,
    Unchanged,
)
from delen.core.result import Result
from delen.core.tenant import check_weight
from delen.errors import ConfigError, DaemonUnreachable, DelenError, InvalidInput
from delen.sdk.address import SYSTEM_SOCKET, TCP_URL, user_socket
from delen.sdk.inputs import Input, encode
from delen.sdk.polling import follow
from delen.wire.answers import result_from_json
from delen.wire.power import changes_to_json
from delen.wire.requests import error_from_json, request_fields
from delen.wire.tenants import tenant_changes_to_json

URL_VARIABLE = "DELEN_URL"
TOKEN_VARIABLE = "DELEN_TOKEN_FILE"
RETRIES = 1


def find_url() -> str:
    """Where the daemon is: ``DELEN_URL``, else the system's socket, the user's, else TCP.

    A socket of another user is passed over: anyone may put a file into the temp directory.
    """
    if url := os.environ.get(URL_VARIABLE):
        return url
    for path in (SYSTEM_SOCKET, user_socket()):
        try:
            status = Path(path).stat()
        except OSError:
            continue
        if status.st_uid in (0, os.getuid()):
            return f"unix://{path}"
    return TCP_URL


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, not yet sent."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    media_type: str | None = None
    timeout: float | None = None

    def arguments(self) -> dict[str, Any]:
        """What httpx's ``request`` takes."""
        arguments: dict[str, Any] = {
            "method": self.method,
            "url": self.path,
            "params": self.query,
            "content": self.body,
        }
        if self.media_type is not None:
            arguments["headers"] = {"Content-Type": self.media_type}
        if self.timeout is not None:
            arguments["timeout"] = self.timeout
        return arguments


class Calls:
    """Builds calls and reads their answers; the same for both kinds of client."""

    def __init__(self, model: str | None, tenant: str) -> None:
        self._model = model
        self._tenant = tenant

    def infer(
        self, x: Input, model: str | None, bounds: Bounds, timeout: float | None, **options: Any
    ) -> Call:
        encoded = encode(x)
        asked = Options(tenant=self._tenant, probabilities=True, **options)
        fields = request_fields(bounds, asked)
        query = {name: _as_text(value) for name, value in fields.items()}
        path = self._path(model, "infer")
        return Call("POST", path, query, encoded.body, encoded.media_type, timeout)

    def plan(self, model: str | None, bounds: Bounds) -> Call:
        asked = request_fields(bounds, Options(tenant=self._tenant))
        query = {name: _as_text(value) for name, value in asked.items()}
        return Call("POST", self._path(model, "plan"), query)

    def feedback(self, model: str | None, labels: Mapping[str, int | str]) -> Call:
        posted = {name: _plain_label(label) for name, label in labels.items()}
        body = json.dumps({"labels": posted}).encode()
        return Call("POST", self._path(model, "feedback"), {}, body, "application/json")

    def change(self, model: str, verb: str) -> Call:
        return Call("POST", self._path(model, verb))

    @staticmethod
    def request(request_id: str) -> Call:
        return Call("GET", f"/v1/requests/{quote(request_id, safe='')}")

    @staticmethod
    def power_history(seconds: float) -> Call:
        return Call("GET", "/v1/power/history", {"seconds": _as_text(seconds)})

    @staticmethod
    def set_tenant(
        name: str,
        energy: float | Unchanged | None,
        period: float | Unchanged | None,
        weight: float | Unchanged | None,
        priority: int | Unchanged | None,
    ) -> Call:
        path = f"/v1/tenants/{quote(check_name(name, 'name'), safe='')}"
        if weight is not None and weight is not UNCHANGED:
            weight = check_weight(weight, "weight")
        if priority is not None and priority is not UNCHANGED:
            priority = check_integer(priority, "priority", HIGHEST_PRIORITY, LOWEST_PRIORITY)
        changes = TenantChanges(_budget(energy, period), weight, priority)
        if changes == TenantChanges():
            raise InvalidInput("name what to change: energy and period, weight or priority")
        return _put(path, tenant_changes_to_json(changes))

    @staticmethod
    def set_power(
        watt_cap: float | Unchanged | None,
        battery: Battery | Unchanged | None,
        mode: str | Unchanged,
    ) -> Call:
        if isinstance(watt_cap, (int, float)):
            watt_cap = check_cap(watt_cap, "watt_cap", "watts")
        if not isinstance(battery, (Battery, Unchanged, NoneType)):
            raise InvalidInput(f"battery must be a Battery or None, not {battery!r}", "battery")
        return _put("/v1/power", changes_to_json(PowerChanges(watt_cap, battery, mode)))

    def _path(self, model: str | None, verb: str) -> str:
        name = model or self._model
        return f"/v1/{verb}" if name is None else f"/v1/models/{quote(name, safe='')}/{verb}"

    @staticmethod
    def read(response: httpx.Response) -> Any:
        """The JSON of a good answer; the daemon's own exception for any other."""
        try:
            document = response.json()
        except ValueError:
            document = None
        if response.status_code != 200 or not isinstance(document, dict):
            raise error_from_json(document, response.status_code)
        return document

    @staticmethod
    def results(
        document: Mapping[str, Any], settle: Callable[[str, float], Any]
    ) -> Result | list[Result]:
        """The answers, with ``settle(request_id, timeout)`` behind their ``energy.settled``."""
        if "results" in document:
            return [follow(result_from_json(item), settle) for item in document["results"]]
        return follow(result_from_json(document), settle)


def _put(path: str, document: Mapping[str, Any]) -> Call:
    return Call("PUT", path, {}, json.dumps(document).encode(), "application/json")


def _budget(
    energy: float | Unchanged | None, period: float | Unchanged | None
) -> Budget | Unchanged | None:
    if energy is None and period is None:
        return None
    if energy is UNCHANGED and period is UNCHANGED:
        return UNCHANGED
    if energy is None or period is None or energy is UNCHANGED or period is UNCHANGED:
        missing = "energy" if energy is None or energy is UNCHANGED else "period"
        raise InvalidInput(f"a budget needs energy and period; {missing} is missing", missing)
    return Budget(check_cap(energy, "energy", "joules"), period)


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain_label(label: object) -> int | str:
    """``label`` as JSON has it; InvalidInput unless it is a whole number (numpy's too) or text."""
    if isinstance(label, str):
        return label
    if isinstance(label, bool) or not isinstance(label, Integral):
        raise InvalidInput(
            f"a label must be the index or the name of a class, not {label!r}", "labels"
        )
    return int(label)


def _read_token(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{TOKEN_VARIABLE}: {file} cannot be read: {error}") from error


def connection_settings(
    url: str | None, timeout: float, token: str | None
) -> tuple[str, dict[str, Any]]:
    """The address in words, and the arguments for httpx's clients."""
    address = url or find_url()
    if timeout <= 0:
        raise InvalidInput(f"timeout is {timeout:g}; it must be above 0 seconds", "timeout")
    if token is None and (file := os.environ.get(TOKEN_VARIABLE)):
        token = _read_token(Path(file))
    settings: dict[str, Any] = {
        "timeout": timeout,
        "headers": {} if token is None else {"Authorization": f"Bearer {token}"},
        "trust_env": False,
    }
    if address.startswith("unix://"):
        settings["base_url"] = "http://delen"
    elif address.startswith(("http://", "https://")):
        settings["base_url"] = address
    else:
        raise InvalidInput(
            f"url is {address!r}; it must be http://HOST:PORT or unix:///PATH", "url"
        )
    return address, settings


def unix_path(address: str) -> str | None:
    return address.removeprefix("unix://") if address.startswith("unix://") else None


def check_open(is_closed: bool) -> None:
    """DelenError where the client's connections are closed."""
    if is_closed:
        raise DelenError("this client is closed; ask before its `with` block ends")


def unreachable(address: str, error: httpx.TransportError) -> DaemonUnreachable:
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return DaemonUnreachable(f"the daemon at {address} gave no answer in time: {error!r}")
    return DaemonUnreachable(
        f"no daemon answers at {address} ({error}); start one with delen-daemon, or say where it "
        f"is with {URL_VARIABLE}"
    )
