"""Which logs and witnesses are trusted, and how many of them are enough (C2SP tlog-policy).

    parse_policy(text: bytes) -> Policy      the same as Policy.parse
    make_policy(log_keys, witnesses, quorum=None) -> Policy
    .text -> bytes    .standing(note: bytes) -> Standing (who has signed; raises if the log has not)
    .is_met_by(names) -> bool                 evaluates the quorum for a set of witness names
    .verify(note: bytes) -> Verified            raises PolicyError with QUORUM_MISSING
    quorum_of(n: int) -> 1 + floor(2n/3)        so that one dishonest witness of four is outvoted

*Convoy rule*, stricter than tlog-policy: where several keys are listed under one name and they have
different signature types, one signature of each type is needed (SPEC.md §4). For a witness this is
written in the file itself, as a group with ``all``; for a log it is applied by ``standing``. A
policy is what trust starts from: pin it, compare its digest, never take it from the coordinator.

Two liberties that other parsers take too: the last line may lack its newline, and a witness key of
type 0x01 is read as the same Ed25519 key of type 0x04 (only timestamped cosignatures count).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from convoy_audit.canonical import decimal, digest
from convoy_audit.checkpoint import Checkpoint, open_checkpoint
from convoy_audit.errors import AuditError, PolicyError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.note import Note, Verifier

MAX_POLICY_BYTES: Final = 1024 * 1024
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Group:
    """A group of witnesses and groups, met when ``threshold`` of its members are."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Which names of a policy a checkpoint's signatures meet."""

    checkpoint: Checkpoint
    note: Note
    met: frozenset[str]
    cosigned: tuple[str, ...]  # the members of the quorum group that are met, or witnesses
    needed: int
    has_quorum: bool

    @property
    def times_s(self) -> tuple[int, ...]:
        """The witnesses' clocks, POSIX seconds, ascending."""
        return tuple(sorted(s.time_s for s in self.note.signatures if s.time_s))


@dataclass(frozen=True, slots=True)
class Verified:
    """A checkpoint that a policy accepts; only ``Policy.verify`` makes one."""

    checkpoint: Checkpoint
    standing: Standing


@dataclass(frozen=True, slots=True)
class Policy:
    """The known logs, witnesses and groups, and the name of the quorum."""

    logs: tuple[Verifier, ...]
    witnesses: Mapping[str, Verifier]
    groups: Mapping[str, Group]
    quorum: str
    text: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: bytes | str) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: the file breaks the format; the line is named.
        """
        if not isinstance(text, bytes | str):
            raise PolicyError(f"a policy is bytes or text, not {type(text).__name__}")
        return _Reader().read(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)

    def is_met_by(self, names: Iterable[str | bytes]) -> bool:
        """Tell whether cosignatures of these witnesses (names of this file) make the quorum."""
        return self.quorum == NONE or self.quorum in self._met({_name(name) for name in names})

    def _met(self, cosigned: Iterable[str]) -> set[str]:
        met = {name for name in cosigned if name in self.witnesses}
        for group in self.groups.values():  # members are defined before their group
            if sum(member in met for member in group.members) >= group.threshold:
                met.add(group.name)
        return met

    @property
    def digest(self) -> str:
        """What to compare with the digest that was pinned."""
        return digest(self.text)

    @property
    def origins(self) -> frozenset[str]:
        """The origins of the known logs."""
        return frozenset(log.name for log in self.logs)

    @property
    def quorum_members(self) -> tuple[str, ...]:
        """The names that the quorum counts."""
        group = self.groups.get(self.quorum)
        return group.members if group else (() if self.quorum == NONE else (self.quorum,))

    @property
    def needed(self) -> int:
        """How many of ``quorum_members`` must be met."""
        group = self.groups.get(self.quorum)
        return group.threshold if group else len(self.quorum_members)

    def standing(self, note: bytes) -> Standing:
        """Verify a checkpoint's signatures and tell which names they meet; the quorum may be
        missing.

        Raises:
            FormatError: not a signed checkpoint.
            SignatureError: a known key's signature is wrong, or the log has not signed as it must.
        """
        checkpoint, opened = open_checkpoint(note, {*self.logs, *self.witnesses.values()})
        check_log_signed(checkpoint, opened, self.logs)
        met = self._met(n for n, v in self.witnesses.items() if opened.signed_by(v))
        return Standing(
            checkpoint=checkpoint,
            note=opened,
            met=frozenset(met),
            cosigned=tuple(name for name in self.quorum_members if name in met),
            needed=self.needed,
            has_quorum=self.quorum == NONE or self.quorum in met,
        )

    def verify(self, note: bytes) -> Verified:
        """Accept a checkpoint that the log has signed and the quorum has cosigned.

        Raises:
            FormatError: not a signed checkpoint.
            SignatureError: as ``standing``.
            PolicyError: QUORUM_MISSING.
        """
        standing = self.standing(note)
        if not standing.has_quorum:
            missing = [name for name in self.quorum_members if name not in standing.met]
            raise PolicyError(
                f"checkpoint {standing.checkpoint.size} is cosigned by {len(standing.cosigned)} of "
                f"{len(self.quorum_members)}, {standing.needed} are needed; missing: " + ", ".join(missing[:8]),
                code="QUORUM_MISSING",
            )
        return Verified(standing.checkpoint, standing)


def check_log_signed(checkpoint: Checkpoint, note: Note, logs: Iterable[Verifier]) -> None:
    """Check that the log signed with one key of every type that is pinned for its origin.

    Raises:
        SignatureError: SIGNATURE_MISSING.
    """
    pinned = [log for log in logs if log.name == checkpoint.origin]
    signed = {log.kind for log in pinned if note.signed_by(log)}
    missing = {log.kind for log in pinned} - signed
    if not pinned or missing:
        raise SignatureError(
            f"log {checkpoint.origin[:80]!r} "
            + (
                "has not signed with " + ", ".join(sorted(kind.name for kind in missing))
                if pinned
                else "is not one of the pinned logs"
            ),
            code="SIGNATURE_MISSING",
        )


def parse_policy(text: bytes | str) -> Policy:
    """Read a policy file; the same as ``Policy.parse``.

    Raises:
        PolicyError: the file breaks the format; the line is named.
    """
    return Policy.parse(text)


def quorum_of(witnesses: int) -> int:
    """Return how many of n witnesses must cosign: 1 + floor(2n/3); 0 of none."""
    return 1 + 2 * witnesses // 3 if witnesses else 0


def make_policy(log_keys: Sequence[str], witnesses: Mapping[str, Sequence[str]], quorum: int | None = None) -> Policy:
    """Write a policy: the log's keys, each party's witness keys, and k of n parties.

    Args:
        log_keys: vkeys of the log, one of each signature type.
        witnesses: party -> its vkeys; with several, all of them must cosign.
        quorum: k; ``quorum_of(n)`` if not given.

    Raises:
        KeyRejected: a key that must not be used.
        PolicyError: k is larger than n, or a party has no key.
    """
    lines = [f"log {key}" for key in log_keys]
    for party, keys in sorted(witnesses.items()):
        if len(keys) == 1:
            lines.append(f"witness {party} {keys[0]}")
            continue
        names = [f"{party}/{Verifier.parse(key).kind:02x}" for key in keys]
        lines += [f"witness {name} {key}" for name, key in zip(names, keys, strict=True)]
        lines.append(f"group {party} all {' '.join(names)}")
    k = quorum_of(len(witnesses)) if quorum is None else quorum
    if k:
        lines.append(f"group convoy-quorum {k} {' '.join(sorted(witnesses))}")
    lines.append(f"quorum {'convoy-quorum' if k else NONE}")
    return Policy.parse(("\n".join(lines) + "\n").encode())


class _Reader:
    """Reads a policy file line by line; names are opaque octets, kept as latin-1 inside."""

    def __init__(self) -> None:
        self._logs: list[Verifier] = []
        self._witnesses: dict[str, Verifier] = {}
        self._groups: dict[str, Group] = {}
        self._log_keys: set[bytes] = set()
        self._witness_keys: set[bytes] = set()
        self._grouped: set[str] = set()
        self._quorum: str | None = None
        self._verbs: dict[str, Callable[[list[str]], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._set_quorum,
        }

    def read(self, text: bytes) -> Policy:
        if len(text) > MAX_POLICY_BYTES:
            raise PolicyError(f"a policy of more than {MAX_POLICY_BYTES} bytes")
        for octet in text:
            if octet == 0x7F or (octet < 0x20 and octet not in b"\t\n"):
                raise PolicyError(f"the control character 0x{octet:02x} in a policy")
        for number, line in enumerate(text.split(b"\n"), start=1):
            words = [word.decode("latin-1") for word in line.replace(b"\t", b" ").split(b" ") if word]
            if not words or words[0].startswith("#"):
                continue
            try:
                verb = self._verbs.get(words[0])
                if verb is None:
                    raise PolicyError(f"unknown keyword {words[0][:20]!r}")
                verb(words[1:])
            except AuditError as error:
                raise PolicyError(f"line {number}: {error.cause}") from None
        if self._quorum is None:
            raise PolicyError("a policy without a quorum line")
        return Policy(
            tuple(self._logs),
            MappingProxyType(self._witnesses),
            MappingProxyType(self._groups),
            self._quorum,
            text,
        )

    def _log(self, words: list[str]) -> None:
        _count(words, 1, 2, "log <vkey> [<url>]")
        key = Verifier.parse(_utf8(words[0]))
        if key.kind is SignatureType.COSIGNATURE_ED25519:
            raise PolicyError("a log key of the type for witnesses")
        _unique(key, self._log_keys)
        self._logs.append(key)

    def _witness(self, words: list[str]) -> None:
        _count(words, 2, 3, "witness <name> <vkey> [<url>]")
        name = self._new(words[0])
        key = Verifier.parse(_utf8(words[1]))
        if not key.kind.is_cosignature:
            key = Verifier(key.name, SignatureType.COSIGNATURE_ED25519, key.public)
        _unique(key, self._witness_keys)
        self._witnesses[name] = key

    def _group(self, words: list[str]) -> None:
        if len(words) < 3:
            raise PolicyError("a group line is: group <name> all|any|<k> <name>…")
        name, members = self._new(words[0]), tuple(words[2:])
        if len(set(members)) != len(members):
            raise PolicyError("a member twice in one group")
        for member in members:
            self._known(member)
        if not self._grouped.isdisjoint(members):
            raise PolicyError("a member that is already in another group")
        thresholds = {"all": len(members), "any": 1}
        k = thresholds.get(words[1])
        if k is None:
            k = decimal(words[1], "a threshold")
        if not 1 <= k <= len(members):
            raise PolicyError(f"a threshold of {k} for {len(members)} member(s)")
        self._groups[name] = Group(name, k, members)
        self._grouped.update(members)

    def _set_quorum(self, words: list[str]) -> None:
        _count(words, 1, 1, "quorum <name>")
        if self._quorum is not None:
            raise PolicyError("a second quorum line")
        if words[0] != NONE:
            self._known(words[0])
        self._quorum = words[0]

    def _new(self, name: str) -> str:
        if name == NONE or name in self._witnesses or name in self._groups:
            raise PolicyError(f"the name {name[:40]!r} is taken")
        return name

    def _known(self, name: str) -> None:
        if name not in self._witnesses and name not in self._groups:
            raise PolicyError(f"the name {name[:40]!r} is not defined before")


def _name(name: str | bytes) -> str:
    return (name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")).decode("latin-1")


def _count(words: list[str], least: int, most: int, form: str) -> None:
    if not least <= len(words) <= most:
        raise PolicyError(f"the line is not: {form}")


def _unique(key: Verifier, known: set[bytes]) -> None:
    if key.public in known:
        raise PolicyError("the same public key twice")
    known.add(key.public)


def _utf8(word: str) -> str:
    try:
        return word.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyError("a key name that is not UTF-8") from None
