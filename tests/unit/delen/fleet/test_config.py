"""The hub's configuration file."""

from __future__ import annotations

from pathlib import Path

import pytest

from delen.errors import ConfigError
from delen.fleet.config import PORT, HubSettings, NodeSettings, read_settings

NODES = """
[[fleet.nodes]]
name = "board"
url = "http://board:8000/"
[[fleet.nodes]]
name = "server"
url = "https://server"
"""


def test_a_file_names_nodes_and_the_rest_has_defaults(tmp_path: Path) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(NODES)
    nodes = NodeSettings("board", "http://board:8000"), NodeSettings("server", "https://server")
    assert read_settings(file) == HubSettings(nodes, port=PORT, period=1.0, lease=3.0)


def test_tokens_are_read_from_files(tmp_path: Path) -> None:
    file, token = tmp_path / "hub.toml", tmp_path / "token"
    token.write_text("secret\n")
    named = f'token_file = "{token}"\n'
    file.write_text(f"[fleet]\n{named}[log]\nformat = 'json'\n{NODES}{named}")
    settings = read_settings(file)
    assert settings.token == settings.nodes[1].token == "secret"
    assert settings.nodes[0].token is None
    assert settings.log_format == "json"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "fleet"),
        ("[fleet]\n", "nodes"),
        ("[fleet]\nnodes = []\n", "fleet.nodes"),
        (f"[server]\n{NODES}", "server"),
        (f"[fleet]\nperiods = 1\n{NODES}", "periods"),
        (f"[fleet]\nperiod_s = 5\n{NODES}", "fleet.period_s"),
        (f"[fleet]\nport = 'http'\n{NODES}", "fleet.port"),
        (f"[fleet]\npolicy = 'xyz'\n{NODES}", "fleet.policy.*'xyz'.*default"),
        (f"[fleet]\nlease_s = 1\n{NODES}", "fleet.lease_s"),
        (f"[fleet]\nlease_s = 1e9\n{NODES}", "fleet.lease_s"),
        (f"[fleet]\ntoken_file = '/nowhere'\n{NODES}", "fleet.token_file"),
        (NODES + "token_file = '/nowhere'\n", r"fleet.nodes\[1\].token_file"),
        (NODES.replace("server", "a server"), r"fleet.nodes\[1\].name"),
        (NODES.replace("https", "ftp"), r"fleet.nodes\[1\].url"),
        (NODES.replace('"server"', '"board"'), "'board' is given twice"),
        (NODES.replace("https://server", "http://board:8000"), "is given twice"),
        ("[fleet", "TOML"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "hub.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named) as caught:
        read_settings(file)
    assert str(file) in str(caught.value)


def test_other_machines_are_let_in_with_a_token_or_where_that_is_meant(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, token = tmp_path / "hub.toml", tmp_path / "token"
    token.write_text("secret\n")
    token.chmod(0o600)
    file.write_text(f'[fleet]\nhost = "0.0.0.0"\n{NODES}')
    with pytest.raises(ConfigError, match=r"fleet\.host 0\.0\.0\.0") as caught:
        read_settings(file)
    for remedy in (str(file), "fleet.token_file", "fleet.insecure"):
        assert remedy in str(caught.value)
    file.write_text(f'[fleet]\nhost = "0.0.0.0"\ntoken_file = "{token}"\n{NODES}')
    assert read_settings(file).host == "0.0.0.0"
    assert not caplog.records
    file.write_text(f'[fleet]\nhost = "0.0.0.0"\ninsecure = true\n{NODES}')
    assert read_settings(file).host == "0.0.0.0"
    assert "fleet.insecure" in caplog.text
