"""Which certificate authorities a coordinator may show now: the pinned one, and one that it has signed for (``channel_authority``).

    trusted(home, now) -> bytes        PEM, one or two          newest(home, now)       the one that issues certificates now

channel-ca.pem                              pinned, from the ticket
channel-ca-next.pem  channel-ca-next.json   what was announced. From ``begins`` on both are believed, until ``GRACE`` after ``ends``,
                                            since clocks differ; then the new one takes the pinned one's place.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509

from convoy_audit.witness_store import write_atomically
from convoy_node.errors import HomeRefused

CA: Final = "channel-ca.pem"
NEXT: Final = "channel-ca-next.pem"
FACTS: Final = "channel-ca-next.json"
GRACE: Final = timedelta(days=1)


def trusted(home: Path, now: datetime) -> bytes:
    """Return the authorities that a coordinator may show now.

    Raises:
        HomeRefused: a file cannot be read.
    """
    pinned, times = read(home / CA), announced(home)
    if times is None or now < times[0]:
        return pinned
    following = read(home / NEXT)
    if now < times[1] + GRACE:
        return pinned + following
    write_atomically(home / CA, following)
    # If we die here: the new one is pinned, and announced once more by itself; the next call goes on.
    (home / FACTS).unlink(missing_ok=True)
    (home / NEXT).unlink(missing_ok=True)
    return following


def newest(home: Path, now: datetime) -> x509.Certificate:
    """Return the authority that issues certificates now.

    Raises:
        HomeRefused: a file cannot be read.
    """
    times = announced(home)
    has_begun = times is not None and now >= times[0]
    return x509.load_pem_x509_certificate(read(home / (NEXT if has_begun else CA)))


def announced(home: Path) -> tuple[datetime, datetime] | None:
    """Return from when on an announced authority issues, and until when the pinned one counts; None where none was announced.

    Raises:
        HomeRefused: the file is damaged.
    """
    try:
        facts = json.loads((home / FACTS).read_text(encoding="ascii"))
        return datetime.fromisoformat(facts["begins"]), datetime.fromisoformat(facts["ends"])
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise HomeRefused(
            f"{FACTS} is damaged.",
            fix="Restore it from a copy, or remove it: it is told again.",
            fix_zh="请从副本恢复，或删除它：对方会再次告知。",
        ) from error


def keep(home: Path, following: bytes, begins: datetime, ends: datetime) -> bool:
    """Keep an announcement; False, and nothing happens, where it is known."""
    if announced(home) == (begins, ends) and read(home / NEXT) == following:
        return False
    write_atomically(home / NEXT, following)
    # If we die here: a certificate lies there that nothing names.
    write_atomically(home / FACTS, json.dumps({"begins": begins.isoformat(), "ends": ends.isoformat()}).encode())
    return True


def read(path: Path) -> bytes:
    """Read a file.

    Raises:
        HomeRefused: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise HomeRefused(
            f"{path.name} cannot be read.", fix="Restore it from a copy.", fix_zh="请从副本恢复。"
        ) from error
