from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from delen.errors import ConfigError
from policies.dispatch.published.bcedge import BCEdge
from policies.exit.bounds import BoundsPolicy
from policies.learnt import Damaged
from policies.plugins import (
    DISPATCH_POLICIES,
    EXIT_POLICIES,
    find_plugin,
    make_controller,
    make_dispatch,
    plugin_names,
)


def test_the_shipped_policies_are_found_by_name() -> None:
    assert isinstance(find_plugin(EXIT_POLICIES, "bounds")(3), BoundsPolicy)
    with pytest.raises(ConfigError, match=r"conditions_policy.*missing"):
        find_plugin(EXIT_POLICIES, "conditions")(3)


def test_an_unknown_name_is_answered_with_those_installed() -> None:
    with pytest.raises(ConfigError, match=r"delen\.exit_policies has no 'oracle'") as caught:
        find_plugin(EXIT_POLICIES, "oracle")
    assert "bounds, conditions" in str(caught.value)
    with pytest.raises(ConfigError, match="installed: none"):
        find_plugin("delen.no_such_group", "x")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs the package ``strange-pack`` with the dispatch policy ``broken``."""

    def install(place: str) -> None:
        package = tmp_path / "strange_pack-1.0.dist-info"
        package.mkdir()
        named = "Metadata-Version: 2.1\nName: strange-pack\nVersion: 1.0\n"
        (package / "METADATA").write_text(named)
        (package / "entry_points.txt").write_text(f"[{DISPATCH_POLICIES}]\nbroken = {place}\n")
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


def test_a_plugin_that_cannot_be_imported_is_named(install: Callable[[str], None]) -> None:
    install("no_such_module:Policy")
    assert "broken" in plugin_names(DISPATCH_POLICIES)
    with pytest.raises(ConfigError, match=r"'broken'.* cannot be loaded: .*no_such_module"):
        find_plugin(DISPATCH_POLICIES, "broken")


def test_a_policy_that_cannot_be_made_is_named_with_its_package(
    install: Callable[[str], None],
) -> None:
    install("fractions:Fraction.from_float")
    with pytest.raises(ConfigError) as caught:
        make_dispatch("broken")
    for part in ("'broken'", "fractions:Fraction.from_float", "strange-pack", "TypeError"):
        assert part in str(caught.value)


def test_a_policy_without_a_call_is_named(install: Callable[[str], None]) -> None:
    install("fractions:Fraction")
    with pytest.raises(ConfigError, match=r"'broken' has no choose\(\)"):
        make_dispatch("broken")


def test_client_controllers_are_made_by_name() -> None:
    for name in ("fixed", "threshold", "pid", "mpc", "jellyfish"):
        assert make_controller(name).name == name
    assert make_controller("pid") is not make_controller("pid")
    with pytest.raises(ConfigError, match=r"no 'oracle'; installed: .*mpc, pid"):
        make_controller("oracle")


def test_a_learnt_policy_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "learnt.npz"
    with pytest.raises(ConfigError, match=r"learnt\.npz: the file cannot be read"):
        make_dispatch(f"bcedge:{file}")
    np.savez(file, **BCEdge().learnt.to_arrays())
    assert isinstance(make_dispatch(f"bcedge:{file}"), BCEdge)
    with pytest.raises(ConfigError, match="fifo reads no file"):
        make_dispatch(f"fifo:{file}")


def test_what_is_no_file_is_not_read_as_a_learnt_policy(tmp_path: Path) -> None:
    pipe = tmp_path / "learnt.npz"
    os.mkfifo(pipe)
    for file in (pipe, tmp_path, "/dev/zero"):
        with pytest.raises(ConfigError, match="it must be a file"):
            make_dispatch(f"bcedge:{file}")
    with pytest.raises(ConfigError, match="name the file"):
        make_dispatch("bcedge:")


@pytest.mark.parametrize("damage", ["truncated", "changed", "of something else", "empty", "noise"])
def test_a_damaged_file_leaves_the_choice_to_the_default(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "learnt.npz"
    np.savez(file, **BCEdge().learnt.to_arrays())
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "changed":
        content[len(content) // 3] ^= 0xFF
    elif damage == "empty":
        content = bytearray()
    elif damage == "noise":
        content = bytearray(b"noise" * 1000)
    file.write_bytes(content)
    if damage == "of something else":
        np.savez(file, numbers=np.arange(3))
    policy = make_dispatch(f"bcedge:{file}")
    assert policy.name == "bcedge:learnt"
    with pytest.raises(Damaged, match=r"learnt\.npz is damaged") as caught:
        policy.choose(0.0, {}, {})
    assert "pickle" not in str(caught.value)
