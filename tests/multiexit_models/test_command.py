from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from delen.errors import MissingExtra
from multiexit_models.command import add_arguments, run

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("module", "package"), [("torch", "torch"), ("PIL", "pillow")])
def test_missing_part_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    given = ["--data", str(tmp_path), "--kind", "images", "--output", str(tmp_path / "o")]
    arguments = parser.parse_args(given)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*delen\[train\]"):
        run(arguments)


def test_what_is_wrong_is_said_before_torch_is_loaded(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from delen.commands.main import main\n"
        "status = main(['build', '--data', 'nowhere', '--output', 'o'])\n"
        "print(status, 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "1 False"
    assert "nowhere does not exist" in ended.stderr


def test_command_is_declared_without_torch() -> None:
    program = (
        "import argparse, sys\n"
        "from multiexit_models.command import add_arguments\n"
        "add_arguments(argparse.ArgumentParser())\n"
        "print([name for name in ('torch', 'onnx', 'tqdm', 'PIL') if name in sys.modules])\n"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "[]"


def test_help_begins_with_the_options_that_matter() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    options = text[text.index("what matters first:") :]
    places = [
        options.index(f"\n  {said}")
        for said in ("--data", "--output", "--network", "--backbone", "--kind", "--at", "--epochs")
    ]
    assert places == sorted(places)
    assert options.index("--at") < options.index("\ntraining:") < options.index("--epochs")


def test_help_says_how_the_shipped_bundle_was_made() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert "delen build --data cifar-10-batches-bin --output cifar10-resnet" in text
    assert "--quick" in text
