"""A ticket: the one line that lets an organisation ask to join, once.

    Ticket(...).text()          ticket_<base64url of canonical JSON>
    Ticket.read(text)           raises TicketMalformed

It names where to ask, the CA that will answer there (whole, so that nothing unauthenticated is fetched), the log by
origin and by the digest of its keys, the role and the party's id, and until when it is good. ``secret`` is what makes
it worth something: whoever has it can *ask*; an administrator still compares a fingerprint before anything is granted.
The coordinator keeps only the secret's SHA-256. The prefix lets scanners of leaked secrets find tickets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from convoy_contracts.canonical import b64u, canonical_bytes, parse_json, unb64u
from convoy_contracts.errors import ContractsError

PREFIX: Final = "ticket_"
MAX_CHARACTERS: Final = 8000
_TEXTS: Final = ("id", "secret", "at", "party", "name", "role", "origin", "keys", "until")


class TicketMalformed(ValueError):
    """A text that is no ticket; the message says why and never repeats the text."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """An invitation. ``at``: host:port of the enrolment listener. ``ca``: certificate in DER. ``keys``: ``keys_digest``
    of the log's verifier keys. ``until``: RFC 3339.
    """

    id: str
    secret: str = field(repr=False)
    at: str
    ca: bytes = field(repr=False)
    party: str
    name: str
    role: str
    origin: str
    keys: str
    until: str

    @property
    def ca_fingerprint(self) -> str:
        """SHA-256 of the CA's certificate, in hex."""
        return hashlib.sha256(self.ca).hexdigest()

    def text(self) -> str:
        """Return the line that is handed over."""
        value: dict[str, Any] = {name: getattr(self, name) for name in _TEXTS}
        return PREFIX + b64u(canonical_bytes({"v": 1, "ca": b64u(self.ca), **value}))

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a ticket; white space from copying is ignored.

        Raises:
            TicketMalformed: cut off, of another version, or no ticket at all.
        """
        packed = "".join(text.split())
        if not packed.startswith(PREFIX) or len(packed) > MAX_CHARACTERS:
            raise TicketMalformed(f"a ticket begins with {PREFIX} and is one line")
        try:
            value = parse_json(unb64u(packed.removeprefix(PREFIX)))
            if not isinstance(value, dict) or value.get("v") != 1:
                raise TicketMalformed("a ticket of another version")
            texts = [value.get(name) for name in ("ca", *_TEXTS)]
            if not all(isinstance(text, str) and text for text in texts):
                raise TicketMalformed("a ticket with members missing")
            ca, *rest = map(str, texts)
            return cls(ca=unb64u(ca), **dict(zip(_TEXTS, rest, strict=True)))
        except ContractsError:
            raise TicketMalformed("a ticket that was cut off or changed") from None


def keys_digest(keys: Sequence[str]) -> str:
    """Return what a ticket says of the log's verifier keys: SHA-256 over their sorted lines, base64url."""
    return b64u(hashlib.sha256("".join(f"{key}\n" for key in sorted(keys)).encode()).digest())


def secret_digest(secret: str) -> str:
    """Return what the coordinator keeps of a secret; 256 random bits need no salt."""
    return hashlib.sha256(secret.encode()).hexdigest()
