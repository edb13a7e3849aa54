"""A certificate for this machine, which clients trust if they are given it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """The files of a certificate for ``name`` and 127.0.0.1, and of its key."""
    openssl = shutil.which("openssl") or pytest.skip("there is no openssl here")
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"),
            *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    key.chmod(0o600)
    return certificate, key


def expire(certificate: Path, key: Path) -> None:
    """Have ``certificate`` be one that ended yesterday."""
    subprocess.run(
        [
            *("openssl", "x509", "-in", certificate, "-signkey", key, "-days", "-1"),
            *("-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
