"""Zero knowledge, experimental and unaudited: a hidden number lies on the right side of a public bound.

    commit(value, blinding=None) -> (commitment: bytes, Opening)
    Claim(kind, bound, contract, run, party, rounds, bits=32)       kind: cohort-at-least | spend-at-most
    prove(claim, openings) -> ZkProof       verify(proof: ZkProof) -> None      raises ZkError
    ZkProof: .claim, .commitments, .to_bytes() / ZkProof.from_bytes(data)       canonical JSON

*What a proof shows.* ``cohort-at-least``: each committed number is at least ``bound``. ``spend-at-most``:
each committed number is not negative and their sum is at most ``bound`` (micro epsilon). Other partners
learn nothing else about the numbers. *What it does not show*: that the party counted honestly - it is a
statement about the committed number (``LABEL`` says so on every output). Binding rests on the discrete
logarithm, so it is not post-quantum; hiding is unconditional.

*How.* Pedersen commitments C = v·G + r·H on ristretto255 (libsodium through rbcl; extra ``zk``), H derived by
hashing to the group, so nobody knows its logarithm. A range proof commits to every bit and shows by a
Schnorr OR-proof that it is 0 or 1 (Cramer, Damgård, Schoenmakers 1994), made non-interactive by one
Fiat-Shamir challenge over contract, run, party, rounds, kind, bound, bits, every commitment and every first
message. Secrets meet only libsodium's scalar and point functions; which branch is simulated depends on a
secret bit. LIMIT: Python does not promise constant time around those calls; do not prove on a machine that
an adversary shares. Never changes for version 1: ``DOMAIN``, H, the transcript, the file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from convoy_audit import zk_group as group
from convoy_audit.canonical import Json, b64u, canonical_bytes, is_version, parse_canonical, unb64u
from convoy_audit.errors import FormatError, ZkError
from convoy_audit.shapes import COUNT, DIGEST, TOKEN

DOMAIN: Final = b"convoy-audit/zk/v1"
LABEL: Final = (
    "experimental, unaudited: proves a statement about the committed number, not that the party counted honestly",
    "实验性功能，未经审计：只证明承诺数值满足声明，不证明该方如实计数",
)
MAX_BITS: Final = 48
MAX_ROUNDS: Final = 4096
_BIT_BYTES: Final = 4 * 32  # commitment to the bit, challenge of branch 0, responses of both branches
_HEAD_BYTES: Final = 32  # the challenge
Kind = Literal["cohort-at-least", "spend-at-most"]
_KINDS: Final = ("cohort-at-least", "spend-at-most")
_MEMBERS: Final = {
    "v",
    "type",
    "kind",
    "bound",
    "bits",
    "contract",
    "run",
    "party",
    "rounds",
    "commitments",
    "proofs",
    "label",
}


@dataclass(frozen=True, slots=True)
class Opening:
    """What the party keeps: the number and its blinding; whoever has both can open the commitment."""

    value: int
    blinding: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Claim:
    """What is claimed of the committed numbers; ``rounds`` names the round of each commitment, in order."""

    kind: Kind
    bound: int
    contract: str
    run: str
    party: str
    rounds: tuple[int, ...]
    bits: int = 32

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise FormatError("a claim is cohort-at-least or spend-at-most")
        if not 1 <= self.bits <= MAX_BITS or not 0 <= COUNT.read(self.bound) < 1 << self.bits:
            raise FormatError(f"a bound of {self.bits} bits, at most {MAX_BITS}")
        if not 1 <= len(self.rounds) <= MAX_ROUNDS or len(set(self.rounds)) != len(self.rounds):
            raise FormatError(f"1 to {MAX_ROUNDS} rounds, each once")
        for number in self.rounds:
            COUNT.read(number)
        DIGEST.read(self.contract)
        TOKEN.read(self.run)
        TOKEN.read(self.party)

    def statements(self, commitments: Sequence[bytes]) -> list[bytes]:
        """Return the points that must each commit to a number of ``bits`` bits."""
        if self.kind == "cohort-at-least":  # C - k·G
            return [group.subtract(point, group.times_g(self.bound)) for point in commitments]
        rest = group.subtract(group.times_g(self.bound), group.total(commitments))  # cap·G - sum C
        return [*commitments, rest]


@dataclass(frozen=True, slots=True)
class ZkProof:
    """A claim with commitments and range proofs; nothing verified yet."""

    claim: Claim
    commitments: tuple[bytes, ...]
    proofs: tuple[bytes, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the proof as a file."""
        claim = self.claim
        return canonical_bytes(
            {
                "v": 1,
                "type": "convoy-zk-proof",
                "kind": claim.kind,
                "bound": claim.bound,
                "bits": claim.bits,
                "contract": claim.contract,
                "run": claim.run,
                "party": claim.party,
                "rounds": list(claim.rounds),
                "commitments": [b64u(point) for point in self.commitments],
                "proofs": [b64u(proof) for proof in self.proofs],
                "label": LABEL[0],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> ZkProof:
        """Read a proof file.

        Raises:
            FormatError: not one of this version.
        """
        value = parse_canonical(data)
        if (
            set(value) != _MEMBERS
            or not is_version(value["v"], 1)
            or value["type"] != "convoy-zk-proof"
            or value["label"] != LABEL[0]
        ):
            raise FormatError("not a zero-knowledge proof of this version")
        if not isinstance(value["rounds"], list) or type(value["bits"]) is not int:
            raise FormatError("a zero-knowledge proof with a member of the wrong kind")
        claim = Claim(
            value["kind"],
            value["bound"],
            value["contract"],
            value["run"],
            value["party"],
            tuple(value["rounds"]),
            value["bits"],
        )
        return cls(claim, _octets(value["commitments"], MAX_ROUNDS), _octets(value["proofs"], MAX_ROUNDS + 1))


def commit(value: int, blinding: bytes | None = None) -> tuple[bytes, Opening]:
    """Commit to a number.

    Args:
        value: 0 <= value < 2^48.
        blinding: 32 bytes, a scalar; fresh randomness if not given (never use one twice).

    Raises:
        FormatError: the value is out of range.
        ZkError: the extra is not installed.
    """
    if type(value) is not int or not 0 <= value < 1 << MAX_BITS:
        raise FormatError(f"a committed number has at most {MAX_BITS} bits")
    opening = Opening(value, blinding or group.random_scalar())
    return group.pedersen(opening.value, opening.blinding), opening


def check_opening(commitment: bytes, opening: Opening) -> None:
    """Check that a commitment opens to this number.

    Raises:
        ZkError: it does not.
    """
    if group.pedersen(opening.value, opening.blinding) != commitment:
        raise ZkError("the opening does not fit the commitment")


def prove(claim: Claim, openings: Sequence[Opening]) -> ZkProof:
    """Prove a claim about the numbers that the openings hold, one for each round of the claim.

    Raises:
        ZkError: the claim is not true of these numbers; nothing is proven.
    """
    if len(openings) != len(claim.rounds):
        raise ZkError(f"{len(openings)} opening(s) for {len(claim.rounds)} round(s)")
    commitments = [group.pedersen(o.value, o.blinding) for o in openings]
    if claim.kind == "cohort-at-least":
        secrets = [Opening(o.value - claim.bound, o.blinding) for o in openings]
    else:
        spent = sum(o.value for o in openings)
        rest = Opening(claim.bound - spent, group.negate(group.sum_scalars([o.blinding for o in openings])))
        secrets = [*openings, rest]
    if not all(0 <= secret.value < 1 << claim.bits for secret in secrets):
        raise ZkError("the claim does not hold for these numbers")
    points = claim.statements(commitments)
    head = _head(claim, commitments)
    proofs = [
        _prove_range(_context(head, number), point, secret, claim.bits)
        for number, (point, secret) in enumerate(zip(points, secrets, strict=True))
    ]
    return ZkProof(claim, tuple(commitments), tuple(proofs))


def verify(proof: ZkProof) -> None:
    """Verify a proof, in this order.

    1. As many commitments as rounds, each a point; as many range proofs as the claim needs.
    2. For each range proof: its bit commitments add up to the point that the claim is about.
    3. Every bit is 0 or 1: the challenge over all first messages comes out again.

    Raises:
        ZkError: it does not hold, or the extra is not installed.
    """
    claim = proof.claim
    if len(proof.commitments) != len(claim.rounds):
        raise ZkError(f"{len(proof.commitments)} commitment(s) for {len(claim.rounds)} round(s)")
    for point in proof.commitments:
        group.check_point(point)
    points = claim.statements(proof.commitments)
    if len(proof.proofs) != len(points):
        raise ZkError(f"{len(proof.proofs)} range proof(s), not {len(points)}")
    head = _head(claim, proof.commitments)
    for number, (point, range_proof) in enumerate(zip(points, proof.proofs, strict=True)):
        _verify_range(_context(head, number), point, range_proof, claim.bits)


def _prove_range(context: bytes, point: bytes, secret: Opening, bits: int) -> bytes:
    """Show that a point commits to a number of ``bits`` bits."""
    blindings = [group.random_scalar() for _ in range(bits - 1)]
    weighted = group.sum_scalars([group.multiply(group.scalar(1 << i), r) for i, r in enumerate(blindings, start=1)])
    blindings.insert(0, group.subtract_scalars(secret.blinding, weighted))  # so that sum 2^i·r_i is the blinding
    values = [secret.value >> i & 1 for i in range(bits)]
    bit_points = [group.pedersen(b, r) for b, r in zip(values, blindings, strict=True)]
    nonces, false_e, false_z, firsts = [], [], [], []
    for bit, bit_point in zip(values, bit_points, strict=True):
        nonce, e, z = group.random_scalar(), group.random_scalar(), group.random_scalar()
        real = group.times_h(nonce)
        simulated = group.subtract(group.times_h(z), group.times(e, _branch(bit_point, 1 - bit)))
        firsts += [real, simulated] if bit == 0 else [simulated, real]
        nonces.append(nonce)
        false_e.append(e)
        false_z.append(z)
    challenge = _challenge(context, point, bit_points, firsts)
    parts = [challenge]
    for i, bit in enumerate(values):
        e = group.subtract_scalars(challenge, false_e[i])
        z = group.add_scalars(nonces[i], group.multiply(e, blindings[i]))
        pair = [(e, z), (false_e[i], false_z[i])]
        (e0, z0), (_, z1) = pair if bit == 0 else reversed(pair)
        parts += [bit_points[i], e0, z0, z1]
    return b"".join(parts)


def _verify_range(context: bytes, point: bytes, proof: bytes, bits: int) -> None:
    if len(proof) != _HEAD_BYTES + bits * _BIT_BYTES:
        raise ZkError(f"a range proof of {len(proof)} bytes, not {_HEAD_BYTES + bits * _BIT_BYTES}")
    words = [proof[at : at + 32] for at in range(0, len(proof), 32)]
    challenge = words.pop(0)
    rows = [words[at : at + 4] for at in range(0, len(words), 4)]
    for bit_point, *scalars in rows:
        group.check_point(bit_point)
        for scalar in scalars:
            group.check_scalar(scalar)
    bit_points = [row[0] for row in rows]
    weighted = [group.times(group.scalar(1 << i), bit_point) for i, bit_point in enumerate(bit_points)]
    if group.total(weighted) != point:
        raise ZkError("the bits do not add up to the committed number")
    firsts = []
    for bit_point, e0, z0, z1 in rows:
        e1 = group.subtract_scalars(challenge, e0)
        firsts.append(group.subtract(group.times_h(z0), group.times(e0, bit_point)))
        firsts.append(group.subtract(group.times_h(z1), group.times(e1, _branch(bit_point, 1))))
    if _challenge(context, point, bit_points, firsts) != challenge:
        raise ZkError("a bit is not shown to be 0 or 1, or the proof belongs to another claim")


def _branch(bit_point: bytes, bit: int) -> bytes:
    """Return the point that is r·H if the bit has this value."""
    return bit_point if bit == 0 else group.subtract(bit_point, group.times_g(1))


def _challenge(context: bytes, point: bytes, bit_points: Sequence[bytes], firsts: Sequence[bytes]) -> bytes:
    return group.hash_to_scalar(b"".join((context, point, *bit_points, *firsts)))


def _head(claim: Claim, commitments: Sequence[bytes]) -> bytes:
    about: dict[str, Json] = {
        "kind": claim.kind,
        "bound": claim.bound,
        "bits": claim.bits,
        "contract": claim.contract,
        "run": claim.run,
        "party": claim.party,
        "rounds": list(claim.rounds),
    }
    text = canonical_bytes(about)
    return b"".join((DOMAIN, struct.pack(">I", len(text)), text, struct.pack(">I", len(commitments)), *commitments))


def _context(head: bytes, number: int) -> bytes:
    return hashlib.sha512(head + struct.pack(">I", number)).digest()


def _octets(values: Any, most: int) -> tuple[bytes, ...]:
    if not isinstance(values, list) or len(values) > most or not all(isinstance(v, str) for v in values):
        raise FormatError("a zero-knowledge proof with a member of the wrong kind")
    return tuple(unb64u(value) for value in values)
