"""The group under ``convoy_audit.zk``: ristretto255 of libsodium (rbcl), with two generators.

    G      the standard generator          H     hash_to_group("convoy-audit/zk/v1 generator H")
    pedersen(value, blinding) = value·G + blinding·H

Points and scalars are 32 bytes, canonical; scalars are modulo the group's order. The identity is 32 zero
bytes and is never accepted from outside. Loaded only when used: the extra ``zk`` may be absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Final

from convoy_audit.errors import ZkError

ORDER: Final = 2**252 + 27742317777372353535851937790883648493
IDENTITY: Final = bytes(32)
_H: Final = b"convoy-audit/zk/v1 generator H"


def is_available() -> bool:
    """Tell whether the extra is installed."""
    try:
        _sodium()
    except ZkError:
        return False
    return True


def pedersen(value: int, blinding: bytes) -> bytes:
    """Return value·G + blinding·H."""
    return add(times_g(value), times_h(blinding))


def scalar(number: int) -> bytes:
    """Return a public number as a scalar."""
    return (number % ORDER).to_bytes(32, "little")


def times_g(number: int) -> bytes:
    """Return number·G."""
    product: bytes = _sodium().crypto_scalarmult_ristretto255_base_allow_scalar_zero(scalar(number))
    return product


def times_h(factor: bytes) -> bytes:
    """Return factor·H."""
    return times(factor, generator_h())


def times(factor: bytes, point: bytes) -> bytes:
    """Return factor·point; the point was checked before, or is a result of this module."""
    product: bytes = _sodium().crypto_scalarmult_ristretto255_allow_scalar_zero(factor, point)
    return product


def add(left: bytes, right: bytes) -> bytes:
    """Return left + right."""
    result: bytes = _sodium().crypto_core_ristretto255_add(left, right)
    return result


def subtract(left: bytes, right: bytes) -> bytes:
    """Return left - right."""
    result: bytes = _sodium().crypto_core_ristretto255_sub(left, right)
    return result


def total(points: Sequence[bytes]) -> bytes:
    """Return the sum of points."""
    result = IDENTITY
    for point in points:
        result = add(result, point)
    return result


def random_scalar() -> bytes:
    """Return a scalar from the system's randomness, not zero."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_random()
    return result


def add_scalars(left: bytes, right: bytes) -> bytes:
    """Return left + right."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_add(left, right)
    return result


def subtract_scalars(left: bytes, right: bytes) -> bytes:
    """Return left - right."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_sub(left, right)
    return result


def multiply(left: bytes, right: bytes) -> bytes:
    """Return left·right of two scalars."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_mul(left, right)
    return result


def negate(value: bytes) -> bytes:
    """Return -value."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_negate(value)
    return result


def sum_scalars(values: Sequence[bytes]) -> bytes:
    """Return the sum of scalars."""
    result = bytes(32)
    for value in values:
        result = add_scalars(result, value)
    return result


def hash_to_scalar(data: bytes) -> bytes:
    """Return SHA-512 of the data, reduced."""
    result: bytes = _sodium().crypto_core_ristretto255_scalar_reduce(hashlib.sha512(data).digest())
    return result


@lru_cache(maxsize=1)
def generator_h() -> bytes:
    """Return H; nobody knows its logarithm to the base G."""
    result: bytes = _sodium().crypto_core_ristretto255_from_hash(hashlib.sha512(_H).digest())
    return result


def check_point(point: bytes) -> None:
    """Refuse what is no point of the group, and the identity.

    Raises:
        ZkError: it must not be used.
    """
    if len(point) != 32 or point == IDENTITY or not _sodium().crypto_core_ristretto255_is_valid_point(point):
        raise ZkError("a commitment that is no point of the group")


def check_scalar(value: bytes) -> None:
    """Refuse a scalar that is not canonical.

    Raises:
        ZkError: it must not be used.
    """
    if len(value) != 32 or int.from_bytes(value, "little") >= ORDER:
        raise ZkError("a scalar that is not reduced")


@lru_cache(maxsize=1)
def _sodium() -> ModuleType:
    try:
        return import_module("rbcl")
    except ImportError:
        raise ZkError("zero-knowledge proofs need an extra: pip install 'convoy-audit[zk]'") from None
