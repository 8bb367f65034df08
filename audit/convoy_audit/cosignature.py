"""The messages that timestamped signatures of checkpoints are made over (C2SP tlog-cosignature).

    message(kind, name: str, text: bytes, time_s: int) -> bytes
    split(kind, signature: bytes) -> (time_s, raw signature)
    join(time_s: int, raw: bytes) -> bytes

``0x04`` Ed25519: ``cosignature/v1``, the time, then the whole note text. ``0x06`` ML-DSA-44: a
``cosigned_message`` with the cosigner's name, the time, origin, start 0, end = size, root;
extension lines are not covered, so nothing may be decided on them. Source: tlog-cosignature as of
v1.1.0-rc.1. Never changes: both formats.
"""

from __future__ import annotations

import struct
from typing import Final

from convoy_audit.canonical import decimal, unb64
from convoy_audit.errors import FormatError, SignatureError
from convoy_audit.keys import SignatureType

MAX_TIME: Final = 2**63 - 1
MAX_NAME_BYTES: Final = 255
"""Of origin and cosigner in an ML-DSA-44 cosignature."""
_TIME: Final = struct.Struct(">Q")


def message(kind: SignatureType, name: str, text: bytes, time_s: int) -> bytes:
    """Return what a cosigner signs.

    Args:
        kind: one of the two cosignature types.
        name: the cosigner's key name.
        text: the checkpoint's note text, with its final newline.
        time_s: POSIX seconds; 0 only where the cosigner makes no statement of the time.

    Raises:
        FormatError: the text is not a checkpoint, or the time is out of range.
    """
    if type(time_s) is not int or not 0 <= time_s <= MAX_TIME:
        raise FormatError("a cosignature's time is out of range")
    if kind is SignatureType.COSIGNATURE_ED25519:
        return b"cosignature/v1\ntime %d\n" % time_s + text
    origin, size, root = _three_lines(text)
    cosigner = name.encode()
    if not 0 < len(cosigner) <= MAX_NAME_BYTES:
        raise FormatError("a cosigner's name has 1 to 255 bytes")
    return b"".join(
        (
            b"subtree/v1\n\0",
            bytes([len(cosigner)]),
            cosigner,
            _TIME.pack(time_s),
            bytes([len(origin)]),
            origin,
            _TIME.pack(0),
            _TIME.pack(size),
            root,
        )
    )


def split(kind: SignatureType, signature: bytes) -> tuple[int, bytes]:
    """Split a ``timestamped_signature``.

    Raises:
        SignatureError: wrong length, or a time beyond 2^63 - 1.
    """
    if len(signature) != _TIME.size + kind.signature_bytes:
        raise SignatureError(f"a cosignature of {len(signature)} bytes")
    (time_s,) = _TIME.unpack_from(signature)
    if time_s > MAX_TIME:
        raise SignatureError("a cosignature's time is out of range")
    return time_s, signature[_TIME.size :]


def join(time_s: int, raw: bytes) -> bytes:
    """Build a ``timestamped_signature``."""
    return _TIME.pack(time_s) + raw


def _three_lines(text: bytes) -> tuple[bytes, int, bytes]:
    lines = text.split(b"\n")
    if len(lines) < 4 or lines.pop() or not all(lines) or len(lines[0]) > MAX_NAME_BYTES:
        raise FormatError("a subtree cosignature is made over a checkpoint: origin, size, root")
    try:
        size = decimal(lines[1].decode("ascii"), "the size")
    except UnicodeDecodeError:
        raise FormatError("the size is not a decimal number") from None
    root = unb64(lines[2])
    if len(root) != 32:
        raise FormatError("a root hash that is not 32 bytes")
    return lines[0], size, root
