"""Signed notes: a text with signature lines (C2SP signed-note v1.0.0).

    open_note(text: bytes, verifiers: Iterable[Verifier]) -> Note   raises AuditError
    split_note(text: bytes) -> (note text, list of SignatureLine)      syntax only, nothing verified
    parse_vkey(vkey: str) -> Verifier, the same as Verifier.parse; .name, .kind, .public, .key_id, .vkey; .verify(text, signature)
    Signer.generate(name, kind), Signer.from_seed(name, kind, seed), Signer.parse(secret);
        .verifier, .vkey, .secret, .line(text, time_s) -> signature line; sign_note(text, signers,
        time_s) -> bytes
    Note: .text, .signatures (verified, with key and time), .unverified (lines of unknown keys),
        .signed_by(verifier)

A ``Note`` exists only if at least one known key signed it and no signature of a known key is wrong.
Signatures of unknown keys are kept as they are and mean nothing. Limits: 1 MiB and 100 signature
lines (the specification asks for at least 16; 32 witnesses with two keys each need 66).
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from convoy_audit import cosignature
from convoy_audit.canonical import b64, loose_unb64, octets, unb64
from convoy_audit.errors import FormatError, KeyRejected, SignatureError
from convoy_audit.keys import SignatureType, check_public, public_of_seed, sign_raw, verify_raw

MAX_NOTE_BYTES: Final = 1024 * 1024
MAX_SIGNATURES: Final = 100
_CONTROL: Final = re.compile(rb"[\x00-\x09\x0b-\x1f]")
_DASH: Final = "— ".encode()
_SECRET: Final = "PRIVATE+KEY+"  # noqa: S105 - the format's prefix


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key under its name; refused when built if the key must not be used."""

    name: str
    kind: SignatureType
    public: bytes
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.kind.is_ml_dsa and len(self.name.encode()) > cosignature.MAX_NAME_BYTES:
            raise KeyRejected(f"the name of an ML-DSA-44 cosigner has at most {cosignature.MAX_NAME_BYTES} bytes")
        check_public(self.kind, self.public)
        object.__setattr__(self, "key_id", _key_id(self.name, self.kind, self.public))

    @classmethod
    def parse(cls, vkey: str | bytes) -> Verifier:
        """Read ``<name>+<key id>+<base64(type || key)>``.

        Raises:
            KeyRejected: not a verifier key, an unknown type, a wrong key id, or a key that must not
                be used.
        """
        if isinstance(vkey, bytes):
            try:
                vkey = vkey.decode("utf-8")
            except UnicodeDecodeError:
                raise KeyRejected("a verifier key that is not UTF-8") from None
        if not isinstance(vkey, str):
            raise KeyRejected(f"a verifier key is text, not {type(vkey).__name__}")
        name, kind, key_id, key = _parse_key(vkey)
        verifier = cls(name, kind, key)
        if verifier.key_id != key_id:
            raise KeyRejected(f"the key id of {name[:80]!r} does not match its key")
        return verifier

    @property
    def vkey(self) -> str:
        """The key as text, as contracts and policies carry it."""
        return f"{self.name}+{self.key_id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def verify(self, text: bytes, signature: bytes) -> int | None:
        """Verify a signature (without its key id) and return its time in POSIX seconds, if the type
        has one.

        Raises:
            SignatureError: it does not hold.
            FormatError: the type needs a checkpoint, and the text is none.
        """
        if not self.kind.is_cosignature:
            verify_raw(self.kind, self.public, text, signature)
            return None
        time_s, raw = cosignature.split(self.kind, signature)
        verify_raw(self.kind, self.public, cosignature.message(self.kind, self.name, text, time_s), raw)
        return time_s


@dataclass(frozen=True, slots=True)
class Signer:
    """A private key under its name; never shown by ``repr``."""

    name: str
    kind: SignatureType
    seed: bytes = field(repr=False)
    verifier: Verifier = field(init=False)

    def __post_init__(self) -> None:
        public = public_of_seed(self.kind, self.seed)
        object.__setattr__(self, "verifier", Verifier(self.name, self.kind, public))

    @classmethod
    def generate(cls, name: str, kind: SignatureType) -> Signer:
        """Make a new key from the system's randomness."""
        return cls(name, kind, secrets.token_bytes(32))

    @classmethod
    def from_seed(cls, name: str, kind: SignatureType, seed: bytes) -> Signer:
        """Take a key from its 32-byte seed.

        Raises:
            KeyRejected: the seed is not 32 bytes, or the name cannot be one.
        """
        return cls(name, kind, seed)

    @classmethod
    def parse(cls, secret: str) -> Signer:
        """Read the text form of a private key, as ``secret`` writes it.

        Raises:
            KeyRejected: not such a text, or the key id does not match.
        """
        if not isinstance(secret, str) or not secret.startswith(_SECRET):
            raise KeyRejected("not a private key of a note signer")
        name, kind, key_id, seed = _parse_key(secret.removeprefix(_SECRET).strip())
        signer = cls(name, kind, seed)
        if signer.verifier.key_id != key_id:
            raise KeyRejected(f"the key id of {name[:80]!r} does not match its key")
        return signer

    @property
    def secret(self) -> str:
        """The private key as one line of text; a file that holds it must be 0600."""
        key = b64(bytes([self.kind]) + self.seed)
        return f"{_SECRET}{self.name}+{self.verifier.key_id.hex()}+{key}"

    @property
    def vkey(self) -> str:
        """The public key as text."""
        return self.verifier.vkey

    def line(self, text: bytes, time_s: int = 0) -> str:
        """Sign a note text and return the signature line, newline included.

        Args:
            text: the note text with its final newline; a checkpoint for cosignature types.
            time_s: POSIX seconds, for cosignature types only.
        """
        if self.kind.is_cosignature:
            signed = cosignature.message(self.kind, self.name, text, time_s)
            signature = cosignature.join(time_s, sign_raw(self.kind, self.seed, signed))
        else:
            signature = sign_raw(self.kind, self.seed, text)
        return f"— {self.name} {b64(self.verifier.key_id + signature)}\n"


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line, not verified."""

    name: str
    key_id: bytes
    signature: bytes
    is_canonical: bool = True
    """False if its base64 has other spare bits than the one right spelling; such a line of a known key does not hold."""

    def __str__(self) -> str:
        return f"— {self.name} {b64(self.key_id + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that was verified."""

    verifier: Verifier
    line: SignatureLine
    time_s: int | None


@dataclass(frozen=True, slots=True)
class Note:
    """A text that at least one known key has signed; ``text`` ends with a newline."""

    text: bytes
    signatures: tuple[Signature, ...]
    unverified: tuple[SignatureLine, ...]

    def signed_by(self, verifier: Verifier) -> bool:
        """Tell whether this very key has signed."""
        return any(signature.verifier == verifier for signature in self.signatures)


def parse_vkey(vkey: str | bytes) -> Verifier:
    """Read a verifier key; the same as ``Verifier.parse``.

    Raises:
        KeyRejected: not a verifier key, or one that must not be used.
    """
    return Verifier.parse(vkey)


def open_note(text: bytes | str, verifiers: Iterable[Verifier | str] | Verifier) -> Note:
    """Verify a note: every line of a known key, of those that stand there twice the first.

    Args:
        text: the whole note as received.
        verifiers: the known keys, also as vkeys.

    Raises:
        FormatError: not a signed note.
        SignatureError: a known key's signature does not hold, or no known key has signed.
    """
    known: dict[tuple[str, bytes], Verifier] = {}
    for given in [verifiers] if isinstance(verifiers, Verifier | str | bytes) else verifiers:
        verifier = given if isinstance(given, Verifier) else Verifier.parse(given)
        taken = known.setdefault((verifier.name, verifier.key_id), verifier)
        if taken != verifier:
            raise KeyRejected(f"two known keys share name and key id: {verifier.name[:80]!r}")
    body, lines = split_note(octets(text, "a note"))
    signatures: list[Signature] = []
    unverified: list[SignatureLine] = []
    seen: set[tuple[str, bytes]] = set()
    for line in dict.fromkeys(lines):
        found = known.get((line.name, line.key_id))
        if found is None:
            unverified.append(line)
        else:
            if not line.is_canonical:
                raise SignatureError(f"{line.name[:80]}: not canonical base64", party=line.name[:80])
            try:
                time_s = found.verify(body, line.signature)
            except SignatureError as error:
                raise SignatureError(f"{line.name[:80]}: {error.cause}", party=line.name[:80]) from None
            if (line.name, line.key_id) not in seen:
                seen.add((line.name, line.key_id))
                signatures.append(Signature(found, line, time_s))
    if not signatures:
        raise SignatureError(
            f"none of {len(known)} known key(s) has signed; the note names "
            + (", ".join(sorted({line.name[:80] for line in lines})[:4]) or "nobody"),
            code="SIGNATURE_MISSING",
        )
    return Note(body, tuple(signatures), tuple(unverified))


def split_note(text: bytes) -> tuple[bytes, list[SignatureLine]]:
    """Split a note into its text and its signature lines; nothing is verified.

    Raises:
        FormatError: not a signed note.
    """
    if len(text) > MAX_NOTE_BYTES:
        raise FormatError(f"a note of more than {MAX_NOTE_BYTES} bytes")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise FormatError("a note that is not UTF-8") from None
    if _CONTROL.search(text):
        raise FormatError("a note with a control character")
    if not text.endswith(b"\n"):
        raise FormatError("a note that does not end with a newline")
    at = text.rfind(b"\n\n")
    if at < 0:
        raise FormatError("a note without an empty line before its signatures")
    body, tail = text[: at + 1], text[at + 2 :]
    if not tail:
        raise FormatError("a note without signatures")
    if tail.count(b"\n") > MAX_SIGNATURES:
        raise FormatError(f"a note with more than {MAX_SIGNATURES} signatures")
    return body, parse_signature_lines(tail)


def parse_signature_lines(tail: bytes) -> list[SignatureLine]:
    """Read signature lines, as a witness answers with.

    Raises:
        FormatError: a line that is none.
    """
    if not tail.endswith(b"\n"):
        raise FormatError("a signature line without a newline")
    return [_signature_line(line) for line in tail[:-1].split(b"\n")]


def sign_note(text: bytes, signers: Iterable[Signer], time_s: int = 0) -> bytes:
    """Sign a text with every signer.

    Raises:
        FormatError: the text cannot be a note's.
    """
    if not isinstance(text, bytes) or not text.endswith(b"\n"):
        raise FormatError("a note text is bytes that end with a newline")
    lines = "".join(signer.line(text, time_s) for signer in signers)
    note = text + b"\n" + lines.encode()
    split_note(note)
    return note


def add_signatures(note: bytes, lines: Sequence[SignatureLine]) -> bytes:
    """Append signature lines to a note, leaving out those it already has."""
    _, present = split_note(note)
    fresh = [line for line in dict.fromkeys(lines) if line not in present]
    return note + "".join(map(str, fresh)).encode()


def check_name(name: str) -> None:
    """Refuse a key name that signed-note does not allow.

    Raises:
        KeyRejected: empty, not UTF-8, or with a space, a plus or a control character.
    """
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise KeyRejected("a key name that is not UTF-8")
    if not name or "+" in name or any(c.isspace() or ord(c) < 0x20 for c in name):
        raise KeyRejected("a key name must not be empty and has no space, plus or control character")


def _key_id(name: str, kind: SignatureType, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _parse_key(text: str) -> tuple[str, SignatureType, bytes, bytes]:
    parts = text.split("+", 2)  # base64 may hold a plus of its own
    if len(text) > 4096 or len(parts) != 3 or len(parts[1]) != 8:
        raise KeyRejected("not a key in the form name+id+key")
    name, hex_id, encoded = parts
    check_name(name)
    try:
        key_id = bytes.fromhex(hex_id)
        key = unb64(encoded)
    except (ValueError, FormatError):
        raise KeyRejected(f"the key of {name[:80]!r} is not hex and base64") from None
    if hex_id != key_id.hex() or not key:
        raise KeyRejected(f"the key of {name[:80]!r} is not spelled as it should be")
    try:
        kind = SignatureType(key[0])
    except ValueError:
        raise KeyRejected(f"the key of {name[:80]!r} has the unknown type 0x{key[0]:02x}") from None
    return name, kind, key_id, key[1:]


def _signature_line(line: bytes) -> SignatureLine:
    if not line.startswith(_DASH):
        raise FormatError("a signature line that does not start with a dash")
    try:
        name, encoded = line[len(_DASH) :].decode("utf-8").split(" ")
    except ValueError:  # UnicodeDecodeError included
        raise FormatError("a signature line without name and signature") from None
    try:
        check_name(name)
        signature = loose_unb64(encoded)
    except (FormatError, KeyRejected) as error:
        raise FormatError(f"a signature line: {error.cause}") from None
    if len(signature) < 5:
        raise FormatError("a signature line: too short")
    return SignatureLine(name, signature[:4], signature[4:], b64(signature) == encoded)
