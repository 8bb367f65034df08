"""What a node keeps for the partner channel, in its folder.

channel.json         where the coordinator is: addresses, proxy, app hashes; no secret
channel-ca.pem       the coordinator's CA, as the ticket named it; nothing else is believed, but what it signed for
                     (channel-ca-next.pem and .json, see ``channel_roots``)
link-ca.pem          the CA of Flower's SuperLink, once told over the channel
channel.position     up to which entry of the log the events were seen
keys/tls.pem         private key and certificate in one file (0600): one replacement changes both
keys/ticket.secret   while joining only; removed with the certificate's arrival
join.json            while joining only: what was asked, so that it can be asked again, byte for byte
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID

from convoy_audit.witness_store import write_atomically
from convoy_node.channel import Door
from convoy_node.channel_roots import CA as CA
from convoy_node.channel_roots import trusted
from convoy_node.errors import HomeRefused, KeyRefused

CHANNEL: Final = "channel.json"
LINK_CA: Final = "link-ca.pem"
POSITION: Final = "channel.position"
TLS: Final = "keys/tls.pem"
TLS_NEW: Final = "keys/tls-new.pem"
SECRET: Final = "keys/ticket.secret"  # noqa: S105 - a file name
JOIN: Final = "join.json"
LEFT: Final = "left.json"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the coordinator is; ``link`` is empty where no SuperLink is configured."""

    enrolment: str
    channel: str = ""
    link: str = ""
    app_hashes: tuple[str, ...] = ()
    proxy: str = ""

    @classmethod
    def load(cls, home: Path) -> Self:
        """Read it.

        Raises:
            HomeRefused: this node was not joined by ticket, or the file is damaged.
        """
        try:
            value = json.loads((home / CHANNEL).read_text(encoding="utf-8"))
            return cls(**{**value, "app_hashes": tuple(value["app_hashes"])})
        except FileNotFoundError:
            raise HomeRefused(
                f"the folder {home.name!r} has joined no coordinator.",
                fix="Run: convoy-node join TICKET.",
                fix_zh="请运行：convoy-node join TICKET。",
            ) from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HomeRefused(
                f"{CHANNEL} is damaged.", fix="Restore it from a copy.", fix_zh="请从副本恢复。"
            ) from error

    def save(self, home: Path) -> None:
        """Write it, in one step."""
        write(home / CHANNEL, json.dumps(asdict(self), indent=1).encode())

    def door(self, home: Path, at: str, now: datetime | None = None) -> Door:
        """Return where and how to connect, by the authorities that count at an instant, the present one if not given."""
        return Door(at, trusted(home, now or datetime.now(UTC)), self.proxy)


@dataclass(frozen=True, slots=True)
class Credentials:
    """The TLS key and certificate (PEM) of this node."""

    key: bytes
    certificate: bytes

    @classmethod
    def load(cls, home: Path, party: str) -> Self:
        """Read them.

        Raises:
            KeyRefused: missing, open to others, or without a certificate.
        """
        path = home / TLS
        try:
            mode, content = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise KeyRefused(f"{TLS} cannot be read.", party=party) from error
        if mode & 0o077:
            raise KeyRefused(f"{TLS} can be read by others than its owner.", party=party)
        key, begin, certificate = content.partition(b"-----BEGIN CERTIFICATE-----")
        if not begin:
            raise KeyRefused(
                "the node has no certificate yet.",
                party=party,
                fix="Wait for the approval: convoy-node up.",
                fix_zh="请等待批准：convoy-node up。",
            )
        return cls(key, begin + certificate)

    @property
    def x509(self) -> x509.Certificate:
        """The certificate, parsed."""
        return x509.load_pem_x509_certificate(self.certificate)

    def days_left(self, now: datetime) -> float:
        """Return how long the certificate is still good."""
        return (self.x509.not_valid_after_utc - now).total_seconds() / 86400

    def is_by(self, authority: Certificate) -> bool:
        """Whether an authority has issued the certificate."""
        try:
            self.x509.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def is_old(self, now: datetime) -> bool:
        """Whether two thirds of the certificate's life are over."""
        found = self.x509
        life = found.not_valid_after_utc - found.not_valid_before_utc
        return now > found.not_valid_before_utc + life * 2 / 3


def new_tls_key() -> bytes:
    """Return a new P-256 key as PEM; gRPC takes no Ed25519."""
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def certificate_request(key: bytes, party: str) -> bytes:
    """Return the request (DER) for a certificate of a TLS key."""
    private = load_pem_private_key(key, None)
    if not isinstance(private, EllipticCurvePrivateKey):
        raise KeyRefused("the TLS key is of another kind.", party=party)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party.removeprefix("did:web:")[-64:])])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(private, hashes.SHA256())
    return request.public_bytes(Encoding.DER)


def matches(key: bytes, certificate: bytes) -> bool:
    """Tell whether a certificate is of a key."""
    try:
        mine = load_pem_private_key(key, None).public_key()
        return bool(x509.load_pem_x509_certificate(certificate).public_key() == mine)
    except ValueError:
        return False


def write_private(path: Path, content: bytes) -> None:
    """Write a secret file (0600), replacing an older one in one step; durable when this returns."""
    write_atomically(path, content)


def write(path: Path, content: bytes) -> None:
    """Write a public file in one step."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise HomeRefused(
            f"{path.name} cannot be written.",
            fix="See the disk and the folder's owner.",
            fix_zh="请检查磁盘与文件夹所有者。",
        ) from error


def read_json(path: Path) -> Mapping[str, Any] | None:
    """Read a small JSON object; None where it is not there or is no object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
