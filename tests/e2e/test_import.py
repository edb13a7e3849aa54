"""What importing delen costs and touches, in a fresh interpreter each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.builders.daemon import Daemon

HEAVY = ("flask", "onnxruntime", "httpx", "uvicorn", "PIL", "torch", "onnx", "numpy")
SIBLINGS = ("api", "policies", "power", "multiexit_models")


@pytest.fixture
def python(
    tmp_path: Path, environment: Callable[..., dict[str, str]]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a program in the folder ``tmp_path``, as ``python -c`` does in an app's folder."""

    def run(program: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def _run(python: Callable[..., subprocess.CompletedProcess[str]], program: str) -> str:
    ended = python(program)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_import_delen_loads_nothing_heavy(python: Callable[..., object]) -> None:
    program = f"import sys, delen; print([m for m in {HEAVY + SIBLINGS} if m in sys.modules])"
    assert _run(python, program).strip() == "[]"


def test_the_client_loads_neither_the_server_nor_the_siblings(
    python: Callable[..., object],
) -> None:
    server = ("flask", "onnxruntime", "uvicorn", "PIL", *SIBLINGS)
    program = (
        "import sys, delen; delen.Client('http://127.0.0.1:9'); delen.AsyncClient; delen.infer; "
        f"print([m for m in {server} if m in sys.modules])"
    )
    assert _run(python, program).strip() == "[]"


def test_every_public_name_is_there(python: Callable[..., object]) -> None:
    program = "import delen; print(all(hasattr(delen, name) for name in delen.__all__))"
    assert _run(python, program).strip() == "True"
    ended = python("import delen; delen.nonsense")
    assert "no attribute 'nonsense'" in ended.stderr  # type: ignore[attr-defined]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """An app's folder with an api and a policies of its own."""
    (tmp_path / "api.py").write_text("MINE = 'api'\n")
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "__init__.py").write_text("MINE = 'policies'\n")
    return tmp_path


def test_an_app_keeps_its_own_packages(
    app: Path, python: Callable[..., object], daemon: Daemon
) -> None:
    program = (
        "import delen, api, policies, numpy as np\n"
        "print(api.MINE, policies.MINE)\n"
        f"with delen.Client({daemon.url!r}) as client:\n"
        "    print(client.infer(np.zeros((32, 32, 3), np.uint8)).exits)\n"
    )
    assert _run(python, program).split() == ["api", "policies", "5"]


def test_the_engine_in_such_an_app_says_what_is_wrong(
    app: Path, python: Callable[..., object]
) -> None:
    program = (
        "import delen\n"
        "try:\n    delen.Engine()\n"
        "except delen.DelenError as error:\n    print(error)\n"
    )
    said = _run(python, program)
    assert str(app / "policies") in said
    assert "delen.Client" in said


@pytest.mark.parametrize("missing", ["onnxruntime", "flask", "uvicorn", "prometheus_client"])
def test_a_daemon_without_its_extra_says_the_command(
    python: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, missing: str
) -> None:
    ended = python(
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from delen.daemon.main import main; sys.exit(main())",
        DELEN_SERVER__PORT="0",
        DELEN_SERVER__SOCKET=str(tmp_path / "d.sock"),
        DELEN_STATE__PATH=str(tmp_path),
    )
    assert ended.returncode == 1
    assert missing in ended.stderr
    assert "pip install 'delen[daemon]'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_engine_without_its_extra_says_the_command(python: Callable[..., object]) -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import delen\n"
        "try:\n    delen.Engine()\n"
        "except delen.MissingExtra as error:\n    print(error, '|', isinstance(error, ImportError))"
    )
    said = _run(python, program)
    assert "pip install 'delen[daemon]'" in said
    assert said.strip().endswith("True")


def test_the_commands_need_no_torch(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = python(
        "import sys; sys.modules['torch'] = None\n"
        "from delen.commands.main import main; sys.exit(main(['profile', '--help']))"
    )
    assert ended.returncode == 0, ended.stderr


def test_profile_without_its_extra_says_the_command(
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    ended = python(
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from delen.commands.main import main; sys.exit(main(['profile', '--quick']))"
    )
    assert ended.returncode == 1
    assert "pip install 'delen[daemon]'" in ended.stderr


def test_the_sdk_serves_where_no_extra_is_installed(
    python: Callable[..., object], daemon: Daemon
) -> None:
    program = (
        "import sys\n"
        "for name in ('onnxruntime', 'flask', 'uvicorn', 'PIL', 'prometheus_client', 'torch',\n"
        "             'api', 'policies', 'power', 'multiexit_models'):\n"
        "    sys.modules[name] = None\n"
        "import delen, numpy as np\n"
        f"with delen.Client({daemon.url!r}) as client:\n"
        "    print(client.infer(np.zeros((32, 32, 3), np.uint8)).label)\n"
    )
    assert _run(python, program).strip()
