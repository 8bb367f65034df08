"""Commit and audit: what makes it dangerous to boost a row in a BILINEAR sum (contract option ``rowAudit``).

The attack (private_ml.md §5.4): a holder sends, for one driver, a factor of 50 where the cap is 0.25. The sum is masked,
so nobody sees it, and that driver's bins at the other holder stand out of the noise. Two checks against it, both by the
trustee, on what the receiving holder saw under the pads that only the trustee can take off:

1. Commitment. Before the first query each holder commits to its rows (Merkle root over salted rows; the node states the
   root in the log). After the last query the trustee names rows; their holder opens them. For these rows it recomputes
   from the committed row and the public weights what should have been sent in every query, and compares.
2. Blocks. For every query and every block of rows the receiver sends one number, the sum of what it received with secret
   random signs. Less the same sum of pads it is ``sum_i s_i v_i``, and cannot exceed what the caps allow.

Rows and signs are drawn by the trustee once both matrices are sent, told to the receiving side only, and never to the
holder who is checked before the run's queries are over. Receivers do not help a cheat: it is their own rows it is after.

Guarantee. A run with ``n`` of ``N`` rows opened lets a holder that alters ``m`` rows pass with probability at most
``C(N - m, n) / C(N, n)`` (``caught``), about ``exp(-n m / N)``; a row boosted beyond twice the bound of a block
(``block_bound``: at most ``block`` caps) is noticed in every case but one in 10^9, and one beyond a block's bound with
chance 1/2 or more a query. Not covered: rows boosted by less, seldom; TRILINEAR sums; CKKS; columns of a local sum; a
holder that lies in its committed rows (the insurer's own claims: contract and law). It comes after the sums are opened:
it deters and stops the release, it does not undo.

Costs privacy towards the trustee, which otherwise sees shapes: it sees the opened rows without a name, and one signed
sum for each block and query. The contract names it as a recipient for that.

Source: cut-and-choose against covert adversaries (Aumann and Lindell 2007); the projection is that of Johnson and
Lindenstrauss as used for norm checks in secure aggregation (Lycklama et al. 2023, RoFL, arXiv:2107.03311, for the idea of norm
bounds). Mechanism: private_ml.md §5.4.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import MessageMalformed
from convoy_models.fixedpoint import Floats, Words
from convoy_models.streams import derive, expand

FALSE_ALARM: Final = 1e-9
"""Chance that an honest holder is blamed by check 2, over a whole run."""
_EMPTY: Final = bytes(32)


@dataclass(frozen=True, slots=True)
class AuditTerms:
    """What the contract says: how many of a thousand rows are opened, and rows in a block."""

    rows_milli: int
    block: int

    def count(self, rows: int) -> int:
        """Return how many of ``rows`` are opened."""
        return min(rows, -(-rows * self.rows_milli // 1000))


def caught(rows: int, opened: int, altered: int) -> float:
    """Return the chance that at least one of ``altered`` rows is among ``opened`` of ``rows``."""
    if altered <= 0:
        return 0.0
    if opened + altered > rows:
        return 1.0
    missed = math.fsum(math.log1p(-altered / (rows - k)) for k in range(opened))
    return -math.expm1(missed)


def block_bound(block: int, cap: float, tests: int) -> float:
    """Return the most that an honest block's signed sum may be: its caps, or Hoeffding's bound over all tests."""
    return cap * min(float(block), math.sqrt(2 * block * math.log(2 * max(1, tests) / FALSE_ALARM)))


class CommittedRows:
    """One holder's rows towards one peer, committed to before the first query.

    Args:
        matrix: (columns, rows) int16, as encoded.
        inputs: (rows, width) what else decides the holder's factors; width may be 0.
    """

    def __init__(self, matrix: NDArray[np.int16], inputs: Floats) -> None:
        self._matrix = matrix
        self._inputs = inputs
        self._secret = secrets.token_bytes(32)
        leaves = [self._leaf(row) for row in range(matrix.shape[1])]
        self._levels = [leaves]
        while len(self._levels[-1]) > 1:
            below = self._levels[-1]
            if len(below) % 2:
                below.append(_EMPTY)
            self._levels.append([_node(below[i], below[i + 1]) for i in range(0, len(below), 2)])

    @property
    def root(self) -> bytes:
        """The commitment, 32 bytes."""
        return self._levels[-1][0]

    def opened(self, row: int) -> bytes:
        """Return one row with its salt and its path to the root."""
        path, place = [], row
        for level in self._levels[:-1]:
            path.append(level[place ^ 1])
            place //= 2
        x, inputs = self._row(row)
        return (
            len(x).to_bytes(4, "big") + len(inputs).to_bytes(4, "big") + self._salt(row) + x + inputs + b"".join(path)
        )

    def _row(self, row: int) -> tuple[bytes, bytes]:
        return (
            np.ascontiguousarray(self._matrix[:, row]).astype("<i2").tobytes(),
            self._inputs[row].astype("<f8").tobytes(),
        )

    def _salt(self, row: int) -> bytes:
        return hashlib.sha256(self._secret + row.to_bytes(8, "big")).digest()[:16]

    def _leaf(self, row: int) -> bytes:
        return _leaf(self._salt(row), *self._row(row))


@dataclass(frozen=True, slots=True)
class OpenedRow:
    """A row that fits its commitment: x (columns,) int64 on the matrix grid; inputs (width,)."""

    x: NDArray[np.int64]
    inputs: Floats


def check_opening(raw: bytes, row: int, rows: int, root: bytes, party: str) -> OpenedRow:
    """Read an opened row.

    Raises:
        MessageMalformed: it does not fit the commitment.
    """
    sizes = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[4:8], "big")
    salt, rest = raw[8:24], raw[24:]
    x, inputs, path = rest[: sizes[0]], rest[sizes[0] : sum(sizes)], rest[sum(sizes) :]
    depth = max(0, (rows - 1).bit_length())
    if len(path) != 32 * depth or sizes[0] % 2 or sizes[1] % 8 or len(x) + len(inputs) != sum(sizes):
        raise MessageMalformed("an opened row has a wrong length.", party=party)
    found, place = _leaf(salt, x, inputs), row
    for at in range(0, len(path), 32):
        other = path[at : at + 32]
        found = _node(other, found) if place % 2 else _node(found, other)
        place //= 2
    if found != root:
        raise MessageMalformed("an opened row is not the one committed to.", party=party)
    return OpenedRow(
        np.frombuffer(x, dtype="<i2").astype(np.int64), np.frombuffer(inputs, dtype="<f8").astype(np.float64)
    )


@dataclass(frozen=True, slots=True)
class Challenge:
    """What the trustee asks a receiver to look at: rows, and the seed of the signs."""

    rows: NDArray[np.int64]
    seed: bytes
    block: int

    @classmethod
    def draw(cls, rows: int, terms: AuditTerms) -> Challenge:
        """Draw rows and seed from the machine's own randomness."""
        chosen = secrets.SystemRandom().sample(range(rows), terms.count(rows))
        return cls(np.array(sorted(chosen), dtype=np.int64), secrets.token_bytes(32), terms.block)

    def to_bytes(self) -> bytes:
        """Return the sealed message's plain text."""
        return self.seed + self.block.to_bytes(4, "big") + self.rows.astype("<i8").tobytes()

    @classmethod
    def from_bytes(cls, raw: bytes, sender: str) -> Challenge:
        """Read it.

        Raises:
            MessageMalformed: it is none.
        """
        if len(raw) < 36 or (len(raw) - 36) % 8 or not int.from_bytes(raw[32:36], "big"):
            raise MessageMalformed("a challenge has a wrong length.", party=sender)
        rows = np.frombuffer(raw[36:], dtype="<i8").astype(np.int64)
        return cls(rows, raw[:32], int.from_bytes(raw[32:36], "big"))

    def project(self, name: str, words: Words) -> Words:
        """Return the signed sums of every block, (J, rows) -> (J, blocks), mod 2^64."""
        wide, count = words.shape
        raw = expand(derive(self.seed, "sign", name), -(-count // 64)).astype("<u8").view(np.uint8)
        signs = np.unpackbits(raw)[:count].astype(np.uint64) * np.uint64(2) - np.uint64(1)
        blocks = -(-count // self.block)
        padded = np.zeros((wide, blocks * self.block), dtype=np.uint64)
        padded[:, :count] = words * signs
        sums: Words = padded.reshape(wide, blocks, self.block).sum(axis=2, dtype=np.uint64)
        return sums


class Watch:
    """What a receiver keeps of a peer's messages for the trustee: a few rows, and a number for each block.

    Args:
        challenge: of the trustee.
        rows: of the pair.
    """

    def __init__(self, challenge: Challenge, rows: int) -> None:
        if challenge.rows.size and not 0 <= int(challenge.rows.min()) <= int(challenge.rows.max()) < rows:
            raise MessageMalformed("a challenge names rows that do not exist.")
        self.challenge = challenge
        self._seen: dict[str, tuple[Words, Words]] = {}

    def see(self, name: str, words: Words) -> None:
        """Keep of a message (J, rows) what the challenge asks for."""
        self._seen[name] = (words[:, self.challenge.rows], self.challenge.project(name, words))

    def report(self) -> bytes:
        """Return everything kept."""
        head = [[name, list(at.shape), list(sums.shape)] for name, (at, sums) in self._seen.items()]
        return _packed(head, [word for pair in self._seen.values() for word in pair])


def read_report(raw: bytes, sender: str) -> dict[str, tuple[Words, Words]]:
    """Read a receiver's report: rows (J, n) and block sums (J, blocks) by message.

    Raises:
        MessageMalformed: it is none.
    """
    head, rest = _unpacked(raw, sender)
    out: dict[str, tuple[Words, Words]] = {}
    try:
        for name, at, sums in head:
            parts = []
            for shape in (at, sums):
                size = 8 * int(shape[0]) * int(shape[1])
                parts.append(np.frombuffer(rest[:size], dtype="<u8").astype(np.uint64).reshape(shape))
                rest = rest[size:]
            out[str(name)] = (parts[0], parts[1])
    except (ValueError, TypeError, IndexError) as error:
        raise MessageMalformed("a report cannot be read.", party=sender) from error
    if rest:
        raise MessageMalformed("a report has more bytes than it says.", party=sender)
    return out


def pack_openings(openings: Mapping[int, bytes]) -> bytes:
    """Return opened rows as one message."""
    head = [[row, len(raw)] for row, raw in openings.items()]
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + text + b"".join(openings.values())


def unpack_openings(raw: bytes, sender: str) -> dict[int, bytes]:
    """Read what ``pack_openings`` wrote.

    Raises:
        MessageMalformed: it is none.
    """
    head, rest = _unpacked(raw, sender)
    openings = {}
    try:
        for row, size in head:
            openings[int(row)] = rest[: int(size)]
            rest = rest[int(size) :]
    except (ValueError, TypeError) as error:
        raise MessageMalformed("opened rows cannot be read.", party=sender) from error
    if rest:
        raise MessageMalformed("opened rows have more bytes than they say.", party=sender)
    return openings


def _packed(head: Sequence[Any], words: Sequence[Words]) -> bytes:
    text = json.dumps(head).encode()
    return len(text).to_bytes(4, "big") + text + b"".join(w.astype("<u8").tobytes() for w in words)


def _unpacked(raw: bytes, sender: str) -> tuple[list[Any], bytes]:
    size = int.from_bytes(raw[:4], "big")
    try:
        head = json.loads(raw[4 : 4 + size])
    except ValueError as error:
        raise MessageMalformed("an audit message cannot be read.", party=sender) from error
    if not isinstance(head, list):
        raise MessageMalformed("an audit message cannot be read.", party=sender)
    return head, raw[4 + size :]


def _leaf(salt: bytes, x: bytes, inputs: bytes) -> bytes:
    sizes = len(x).to_bytes(4, "big") + len(inputs).to_bytes(4, "big")
    return hashlib.sha256(b"\x00" + sizes + salt + x + inputs).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
