"""Pseudo-random words: one stream for each key and label, readable from any position.

A stream is AES-256 in counter mode over zeros, under a key that HKDF derives from a pair secret
and a label. Two parties who share the secret expand the same words; to everybody else they are
uniform in Z_2^64. Labels are encoded so that no two lists of parts give the same bytes (each part
is length-prefixed), hence streams never collide.

What may never change: the label encoding, the HKDF ``info`` prefix, counter zero at word zero,
little-endian words.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from convoy_models.errors import ShapeMismatch
from convoy_models.fixedpoint import Words

PROTOCOL: Final = "convoy/1"
_ZEROS: Final = bytes(1 << 20)


def label(*parts: str | int) -> bytes:
    """Return an injective encoding of the parts."""
    out = bytearray()
    for part in parts:
        raw = str(part).encode()
        kind = b"i" if isinstance(part, int) else b"s"
        out += kind + len(raw).to_bytes(4, "big") + raw
    return bytes(out)


def derive(secret: bytes, *parts: str | int) -> bytes:
    """Return a 32-byte key for a purpose (HKDF-SHA256-Expand, RFC 5869 §2.3)."""
    return HKDFExpand(algorithm=hashes.SHA256(), length=32, info=label(PROTOCOL, *parts)).derive(secret)


def expand(key: bytes, words: int, offset: int = 0) -> Words:
    """Return words ``offset .. offset + words`` of the stream of a key.

    Args:
        key: 32 bytes.
        words: how many 64-bit words.
        offset: the first word; even, because a cipher block holds two words.

    Raises:
        ShapeMismatch: a negative length or an odd offset.
    """
    if words < 0 or offset < 0 or offset % 2:
        raise ShapeMismatch(f"a stream cannot be read for {words} words from word {offset}.")
    counter = (offset // 2).to_bytes(16, "big")
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(counter)).encryptor()
    out = np.empty(words, dtype="<u8")
    view, zeros = out.view(np.uint8).data, memoryview(_ZEROS)
    for start in range(0, len(view), len(zeros)):
        size = min(len(zeros), len(view) - start)
        encryptor.update_into(zeros[:size], view[start : start + size])
    return out.astype(np.uint64, copy=False)
