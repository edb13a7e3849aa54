"""TLS of the TCP addresses: a certificate and its key, which can be read again."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from api.guard import check_rights
from delen.errors import ConfigError

CERTIFICATE, KEY = "server.tls_cert", "server.tls_key"

_OF_TIME = (9, 10)
"""OpenSSL's codes for a certificate that is not valid yet, or no longer."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate's chain and its key as they were read, and the ``context`` that has them."""

    chain: bytes
    key: bytes
    context: ssl.SSLContext


class Tls:
    """Encrypts new connections as ``identity``. ConfigError where the files of the certificate's
    chain and of its key do not belong together, cannot be read, or every user may write the key."""

    def __init__(self, certificate: str, key: str) -> None:
        self._certificate, self._key = certificate, key
        self.identity = self.read()

    @classmethod
    def of(cls, certificate: str, key: str) -> Tls | None:
        """None where neither file is named; ConfigError where only one is."""
        if not (certificate or key):
            return None
        if not (certificate and key):
            there, missing = (CERTIFICATE, KEY) if certificate else (KEY, CERTIFICATE)
            raise ConfigError(f"{there} needs {missing}, too")
        return cls(certificate, key)

    def warning(self) -> str | None:
        """Why no client accepts the certificate today, if that is its time; else None."""
        problem = _problem_of_time(self.identity)
        if problem is None:
            return None
        return (
            f"{CERTIFICATE} {self._certificate}: {problem}, so clients refuse it: renew it, or set "
            "this machine's clock"
        )

    def use(self, identity: Identity) -> None:
        """Encrypt as ``identity``, as ``read`` returned it, from now on."""
        self.identity = identity

    def read(self) -> Identity:
        """What the files say now."""
        chain, _ = _read(CERTIFICATE, self._certificate)
        key, mode = _read(KEY, self._key)
        check_rights(mode, f"{KEY} {self._key}")
        _check_pem(f"{CERTIFICATE} {self._certificate}", chain, "CERTIFICATE", "PRIVATE KEY")
        _check_pem(f"{KEY} {self._key}", key, "PRIVATE KEY", "CERTIFICATE")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, password="")
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"{CERTIFICATE} {self._certificate} and {KEY} {self._key} must be a certificate "
                f"chain and its key without a password, both in PEM: {error}"
            ) from error
        if (chain, key) != (_read(CERTIFICATE, self._certificate)[0], _read(KEY, self._key)[0]):
            raise ConfigError(
                f"{CERTIFICATE} {self._certificate} or {KEY} {self._key} changed while it was "
                "read: read both again once they are whole (SIGHUP, or a start)"
            )
        return Identity(chain, key, context)


def _problem_of_time(identity: Identity) -> str | None:
    """What OpenSSL says to a client that trusts the certificate and nothing else, if that is about
    the time; the module ``ssl`` reads no dates of one's own certificate."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cadata=identity.chain.decode("ascii", "ignore"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server),
        identity.context.wrap_bio(to_server, to_client, server_side=True),
    )
    for end in 2 * ends:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            return error.verify_message if error.verify_code in _OF_TIME else None
        except ssl.SSLError:
            return None
    return None


def _read(name: str, file: str) -> tuple[bytes, int]:
    """What is in ``file``, which the configuration calls ``name``, and its mode."""
    try:
        return Path(file).read_bytes(), Path(file).stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name} {file} cannot be read: {reason}") from error


def _check_pem(file: str, content: bytes, block: str, other: str) -> None:
    """ConfigError unless ``content`` has a ``block`` in PEM; the other file has an ``other``."""
    if f"{block}-----".encode() in content:
        return
    if not content.strip():
        raise ConfigError(f"{file} is empty; it must have a {block} in PEM")
    is_swapped = f"{other}-----".encode() in content
    hint = f" but a {other}: {CERTIFICATE} and {KEY} are swapped" if is_swapped else ""
    raise ConfigError(f"{file} has no {block} in PEM{hint}")
