"""Which tenants a user of this machine may be."""

from __future__ import annotations

import pwd
from dataclasses import dataclass

import pytest

from api.tenant_access import TenantAccess
from delen.errors import ConfigError, Forbidden


@dataclass
class Sender:
    user: int | None


ALICE, BOB, CAROL, NOBODY = (Sender(number) for number in (1001, 1002, 1003, None))


@pytest.fixture
def access() -> TenantAccess:
    return TenantAccess(["1001=camera", "1001=lidar", "1002=door"])


@pytest.mark.parametrize(
    ("sender", "named", "tenant"),
    [
        (ALICE, "camera", "camera"),
        (ALICE, "lidar", "lidar"),
        (ALICE, "default", "camera"),
        (BOB, "default", "door"),
        (CAROL, "default", "default"),
        (CAROL, "anything", "anything"),
        (NOBODY, "anything", "anything"),
    ],
)
def test_users_are_their_own_tenants(
    access: TenantAccess, sender: Sender, named: str, tenant: str
) -> None:
    assert access.tenant(named, sender) == tenant


@pytest.mark.parametrize(
    ("sender", "named"),
    [(ALICE, "door"), (ALICE, "anything"), (CAROL, "door"), (NOBODY, "camera")],
)
def test_nobody_is_anothers_tenant(access: TenantAccess, sender: Sender, named: str) -> None:
    with pytest.raises(Forbidden):
        access.tenant(named, sender)


def test_what_a_bound_tenant_did_is_shown_to_its_user_alone(access: TenantAccess) -> None:
    assert [access.may_read("door", each) for each in (BOB, ALICE, CAROL, NOBODY)] == [
        True, False, False, False,
    ]  # fmt: skip
    assert access.may_read("anything", CAROL)


def test_users_may_be_named_and_must_exist() -> None:
    root = pwd.getpwuid(0).pw_name
    assert TenantAccess([f"{root}=system"]).tenant("default", Sender(0)) == "system"
    with pytest.raises(ConfigError, match=r"tenants\.users .*no-such-user"):
        TenantAccess(["no-such-user=camera"])


def test_without_users_everybody_names_any_tenant() -> None:
    assert TenantAccess().tenant("camera", NOBODY) == "camera"
    assert not TenantAccess().is_bound
