"""The coordinator's own keys: born at ``init`` on this machine, one 0600 file each.

``log.ed25519``       signs checkpoints of the log
``log.ml-dsa-44``     signs them a second time with a post-quantum key, where the library has it
``release.ed25519``   signs the manifest of a release
``internal.token``    bearer token of the ServerApp process for ``/internal``
``ca.p256``           signs certificates of the partner channel; made at the first invitation (``enrolment.ca``)
``operator.token``    bearer token of the operator, who alone may enrol, offer and start runs

Each key file holds the 32-byte seed in hex and is never overwritten. Losing the log key means a
new origin: partners pin its verifier key.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_coordinator.errors import SetupError

LOG_KEY: Final = "log.ed25519"
LOG_KEY_PQ: Final = "log.ml-dsa-44"
RELEASE_KEY: Final = "release.ed25519"
CA_KEY: Final = "ca.p256"
INTERNAL_TOKEN: Final = "internal.token"  # noqa: S105 - a file name
OPERATOR_TOKEN: Final = "operator.token"  # noqa: S105 - a file name
SEED_BYTES: Final = 32
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets of the coordinator, read once at start; never shown by ``repr``."""

    log_seed: bytes = field(repr=False)
    log_seed_pq: bytes = field(repr=False)
    release_seed: bytes = field(repr=False)
    internal_token: str = field(repr=False)
    operator_token: str = field(repr=False)

    @property
    def release_key(self) -> Ed25519PrivateKey:
        """The key that signs release manifests."""
        return Ed25519PrivateKey.from_private_bytes(self.release_seed)

    @property
    def release_public(self) -> bytes:
        """The public half of the release key, 32 bytes."""
        return self.release_key.public_key().public_bytes_raw()


def create_keys(folder: Path) -> None:
    """Make every key and token in a folder of their own.

    Raises:
        SetupError: one of them exists already; nothing is changed then.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    names = (LOG_KEY, LOG_KEY_PQ, RELEASE_KEY, INTERNAL_TOKEN, OPERATOR_TOKEN)
    present = [name for name in names if (folder / name).exists()]
    if present:
        raise SetupError(
            "KEYS_EXIST",
            f"the keys folder already holds {', '.join(present)}",
            fix="Keys are never overwritten. Take another home, or move the old keys away first.",
        )
    for name in (LOG_KEY, LOG_KEY_PQ, RELEASE_KEY):
        _write_secret(folder / name, secrets.token_bytes(SEED_BYTES).hex())
    _write_secret(folder / INTERNAL_TOKEN, f"internal_{secrets.token_urlsafe(32)}")
    _write_secret(folder / OPERATOR_TOKEN, f"operator_{secrets.token_urlsafe(32)}")


def read_keys(folder: Path) -> Keys:
    """Read the keys of a home.

    Raises:
        SetupError: a file is missing, unreadable, open to others, or not a key.
    """
    return Keys(
        log_seed=_read_seed(folder / LOG_KEY),
        log_seed_pq=_read_seed(folder / LOG_KEY_PQ),
        release_seed=_read_seed(folder / RELEASE_KEY),
        internal_token=_read_secret(folder / INTERNAL_TOKEN),
        operator_token=_read_secret(folder / OPERATOR_TOKEN),
    )


def read_token(folder: Path, name: str) -> str:
    """Read one bearer token (``INTERNAL_TOKEN`` or ``OPERATOR_TOKEN``) of a keys folder."""
    return _read_secret(folder / name)


def write_scalar(path: Path, value: int) -> None:
    """Write a P-256 private key as its 32 bytes in hex, 0600; never over another."""
    _write_secret(path, value.to_bytes(SEED_BYTES, "big").hex())


def read_scalar(path: Path) -> int:
    """Read a P-256 private key that ``write_scalar`` wrote.

    Raises:
        SetupError: the file is missing, open to others, or not a key.
    """
    value = int.from_bytes(_read_seed(path), "big")
    if not 0 < value < P256_ORDER:
        raise SetupError("KEY_UNREADABLE", f"{path.name} is not a P-256 key", fix="Restore it from a backup.")
    return value


def _write_secret(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())


def _read_secret(path: Path) -> str:
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        raise SetupError(
            "KEY_MISSING",
            f"{path.name} is not in the keys folder",
            fix="Run 'convoy-coordinator init' first.",
        ) from None
    except (OSError, UnicodeDecodeError):
        raise SetupError("KEY_UNREADABLE", f"{path.name} cannot be read", fix="Check owner and mode (0600).") from None
    if mode & 0o077:
        raise SetupError("KEY_OPEN", f"{path.name} has mode {mode:04o}", fix=f"chmod 600 {path.name}")
    if not text:
        raise SetupError("KEY_UNREADABLE", f"{path.name} is empty", fix="Restore it from a backup.")
    return text


def _read_seed(path: Path) -> bytes:
    try:
        seed = bytes.fromhex(_read_secret(path))
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise SetupError(
            "KEY_UNREADABLE",
            f"{path.name} is not a 32-byte seed in hex",
            fix="Restore it from a backup.",
        )
    return seed
