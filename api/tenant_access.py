"""Which tenants a user of this machine is, where the configuration binds users to tenants."""

from __future__ import annotations

import pwd
from collections.abc import Sequence
from typing import Protocol

from delen.core.bounds import DEFAULT_TENANT, check_name
from delen.errors import ConfigError, Forbidden


class Sender(Protocol):
    """Who sent a request."""

    @property
    def user(self) -> int | None:
        """The number of its user on this machine; None where the kernel does not know."""


class TenantAccess:
    """Lets each user be its own tenants, and nobody else be those. ``users`` are
    ``"USER=TENANT"``, with a user's name or number; a user's first tenant is what its requests are
    that name none. ConfigError for a user that does not exist."""

    def __init__(self, users: Sequence[str] = ()) -> None:
        self._own: dict[int, tuple[str, ...]] = {}
        for user, _, tenant in (pair.partition("=") for pair in users):
            number = _number(user.strip())
            own = self._own.get(number, ())
            self._own[number] = (*own, check_name(tenant.strip(), "tenants.users"))
        self._taken = {tenant for own in self._own.values() for tenant in own}

    @property
    def is_bound(self) -> bool:
        return bool(self._own)

    def tenant(self, named: str, sender: Sender) -> str:
        """Whose request it is that names the tenant ``named``: a user's first one where it names
        none. Forbidden where it is another user's."""
        if not self._own:
            return named
        own = self._own.get(sender.user if sender.user is not None else -1, ())
        if named in own:
            return named
        if own and named == DEFAULT_TENANT:
            return own[0]
        if own:
            raise Forbidden(
                f"tenant {named!r} is not one of this user's, which are: {', '.join(own)}"
            )
        if named in self._taken:
            raise Forbidden(f"tenant {named!r} is bound to another user by tenants.users")
        return named

    def may_read(self, tenant: str, sender: Sender) -> bool:
        """Whether what ``tenant`` did is shown to the user."""
        if tenant not in self._taken:
            return True
        return tenant in self._own.get(sender.user if sender.user is not None else -1, ())


def _number(user: str) -> int:
    if user.isascii() and user.isdecimal():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise ConfigError(
            f"tenants.users names {user!r}, who is not a user of this machine"
        ) from None


UNBOUND = TenantAccess()
