"""The folder of one SuperLink: certificates, secrets, membership, logs.

    tls/ca.pem  tls/link.pem  tls/link.key      the server's certificate (``pki`` writes one for
    loopback) secrets/superexec.key                       lets a ServerApp worker take tasks
    secrets/control.token                       lets the coordinator register nodes and start runs
    membership.json                             {federation: [party id, ...]}, read again at every
    change events.jsonl                                the event log link.db
    Flower's state, unless it is kept in memory ready.json                                  the
    addresses, written once both listeners answer
    turned-away.json                            who was turned away at the public door, in numbers

Secrets are born here, mode 0600, and are never passed as arguments or in the environment.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from convoy_coordinator.channel.handshake import CODES
from convoy_coordinator.federation.flower.errors import LinkHomeUnusable

DEFAULT_FEDERATION: Final = "@none/default"
"""The federation id of Flower's own default; another contract gets ``@none/<name>``."""

REQUEST_TURNED_AWAY: Final = "REQUEST_TURNED_AWAY"
TURNED: Final = frozenset({*CODES, REQUEST_TURNED_AWAY})
_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Ready:
    """Where a running SuperLink listens.

    ``internal`` serves everything to this machine; ``public`` serves fleet and health to the
    partners. ``app_hash`` is the SHA-256 (hex) of the one app bundle that runs may be started with.
    """

    pid: int
    internal: str
    public: str
    app_hash: str


@dataclass(frozen=True, slots=True)
class LinkHome:
    """The files of one SuperLink."""

    path: Path

    @property
    def ca_file(self) -> Path:
        """The certificate that partners pin."""
        return self.path / "tls" / "ca.pem"

    @property
    def certificate_file(self) -> Path:
        """The server's certificate."""
        return self.path / "tls" / "link.pem"

    @property
    def key_file(self) -> Path:
        """The server's private key."""
        return self.path / "tls" / "link.key"

    @property
    def membership_file(self) -> Path:
        """Who belongs to which federation."""
        return self.path / "membership.json"

    @property
    def events_file(self) -> Path:
        """The event log."""
        return self.path / "events.jsonl"

    @property
    def database_file(self) -> Path:
        """Flower's state, where it is kept on disk."""
        return self.path / "link.db"

    @property
    def ready_file(self) -> Path:
        """The addresses of a running SuperLink."""
        return self.path / "ready.json"

    @property
    def turned_file(self) -> Path:
        """How many were turned away at the public door since the SuperLink's start, by code."""
        return self.path / "turned-away.json"

    @property
    def flower_home(self) -> Path:
        """Where Flower itself may write."""
        return self.path / "flwr"

    def create_secrets(self) -> None:
        """Create what is missing of the two secrets."""
        folder = self.path / "secrets"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("superexec.key", "control.token"):
            if not (folder / name).exists():
                write_private(folder / name, secrets.token_hex(32).encode())

    def superexec_secret(self) -> bytes:
        """Return the secret of the ServerApp workers."""
        return read_private(self.path / "secrets" / "superexec.key")

    def control_token(self) -> str:
        """Return the token of the control API."""
        return read_private(self.path / "secrets" / "control.token").decode()

    def write_membership(self, federations: Mapping[str, Iterable[str]]) -> None:
        """Say who belongs to which federation from now on; a running SuperLink follows at once."""
        body = {name: sorted(parties) for name, parties in federations.items()}
        _replace(self.membership_file, json.dumps(body, indent=2, ensure_ascii=False).encode())

    def write_ready(self, ready: Ready) -> None:
        """Tell that both listeners answer."""
        _replace(self.ready_file, json.dumps(asdict(ready)).encode())

    def write_turned(self, counts: Mapping[str, int]) -> None:
        """Tell how many were turned away."""
        _replace(self.turned_file, json.dumps(dict(counts)).encode())

    def read_turned(self) -> dict[str, int]:
        """Return how many were turned away, by code; nothing where nobody has told."""
        try:
            counts = json.loads(self.turned_file.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(counts, dict):
            return {}
        return {code: count for code, count in counts.items() if type(count) is int and code in TURNED}

    def read_ready(self) -> Ready:
        """Return the addresses of the running SuperLink.

        Raises:
            LinkHomeUnusable: no SuperLink has become ready in this folder.
        """
        try:
            return Ready(**json.loads(self.ready_file.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise LinkHomeUnusable(
                f"{self.ready_file.name} cannot be read ({type(error).__name__})",
                fix="Start the SuperLink of this folder and wait until it is ready.",
            ) from error


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that only its owner can read."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def read_private(path: Path) -> bytes:
    """Read a secret and refuse one that others could have read.

    Raises:
        LinkHomeUnusable: it is missing, empty, or readable by group or others.
    """
    try:
        mode, content = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise LinkHomeUnusable(
            f"{path.name} cannot be read ({type(error).__name__})",
            fix="Start the SuperLink once in its folder; it creates its secrets.",
        ) from error
    if stat.S_IMODE(mode) & 0o077 or not content:
        raise LinkHomeUnusable(
            f"{path.name} is empty or can be read by others",
            fix=f"Delete {path.name} and start the SuperLink again; it creates a new one (0600).",
        )
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file of the folder.

    Raises:
        LinkHomeUnusable: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LinkHomeUnusable(
            f"{path.name} cannot be read ({type(error).__name__})",
            fix=f"Write {path.name} as JSON.",
        ) from error


def _replace(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader sees the old or the new content, never a part."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(content)
    beside.replace(path)
