"""Proofs of logging as one text file (C2SP tlog-proof@v1).

    TlogProof(index, path, checkpoint, extra=None); .text -> bytes
    parse_proof(text: bytes) -> TlogProof         syntax only; also TlogProof.parse
    verify_proof(proof, leaf: bytes, policy) -> Verified       ``leaf`` is the leaf hash; raises AuditError

``checkpoint`` is the signed note, kept to the byte; ``extra`` is not authenticated and means
nothing here. Convention for the file name: ``.tlog-proof``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from convoy_audit import merkle
from convoy_audit.canonical import b64, decimal, octets, unb64
from convoy_audit.errors import FormatError
from convoy_audit.policy import Policy, Verified

MAX_PROOF_BYTES: Final = 2 * 1024 * 1024
_HEADER: Final = b"c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """Index, inclusion path and signed checkpoint of one entry; nothing verified yet."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    @property
    def text(self) -> bytes:
        """The proof as a file."""
        lines = [_HEADER.decode()]
        if self.extra is not None:
            lines.append(f"extra {b64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [b64(node) for node in self.path]
        return ("\n".join(lines) + "\n\n").encode() + self.checkpoint

    @classmethod
    def parse(cls, text: bytes | str) -> TlogProof:
        """Read a proof file.

        Raises:
            FormatError: not a tlog-proof.
        """
        text = octets(text, "a tlog-proof")
        if len(text) > MAX_PROOF_BYTES:
            raise FormatError(f"a proof of more than {MAX_PROOF_BYTES} bytes")
        head, blank, checkpoint = text.partition(b"\n\n")
        lines = head.split(b"\n")
        if not blank or not checkpoint or lines.pop(0) != _HEADER:
            raise FormatError("not a tlog-proof")
        extra = None
        if lines and lines[0].startswith(b"extra "):
            extra = unb64(lines.pop(0).removeprefix(b"extra "))
        if not lines or not lines[0].startswith(b"index "):
            raise FormatError("a tlog-proof without an index")
        index = _ascii_decimal(lines.pop(0).removeprefix(b"index "))
        if len(lines) > merkle.MAX_PROOF:
            raise FormatError("a tlog-proof with too many hashes")
        path = tuple(unb64(line) for line in lines)
        if any(len(node) != merkle.HASH_BYTES for node in path):
            raise FormatError("a tlog-proof with a hash that is not 32 bytes")
        # The checkpoint is kept to the byte and judged by ``verify_proof``.
        return cls(index, path, checkpoint, extra)


def parse_proof(text: bytes | str) -> TlogProof:
    """Read a proof file; the same as ``TlogProof.parse``.

    Raises:
        FormatError: not a tlog-proof.
    """
    return TlogProof.parse(text)


def verify_proof(proof: TlogProof | bytes | str, leaf: bytes, policy: Policy) -> Verified:
    """Verify that a leaf hash is in a log that the policy accepts.

    Raises:
        FormatError, SignatureError, PolicyError: the checkpoint is not accepted.
        ProofError: the leaf is not at this index.
    """
    if not isinstance(proof, TlogProof):
        proof = TlogProof.parse(proof)
    verified = policy.verify(proof.checkpoint)
    checkpoint = verified.checkpoint
    merkle.verify_inclusion(leaf, proof.index, checkpoint.size, proof.path, checkpoint.root)
    return verified


def _ascii_decimal(text: bytes) -> int:
    try:
        return decimal(text.decode("ascii"), "the index")
    except UnicodeDecodeError:
        raise FormatError("the index is not a decimal number") from None
