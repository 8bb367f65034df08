"""Strict JSON in, canonical JSON out (RFC 8259, RFC 8785).

Guarantees: ``parse_json`` accepts only what ``canonical_bytes`` can write back without loss: no duplicate keys, no
fractions or exponents, integers below 2^53, strings in Unicode NFC without lone surrogates, bounded size and depth.
What may never change: the bytes of ``canonical_bytes``; every digest and signature of Convoy hangs on them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import unicodedata
from collections.abc import Mapping
from typing import Any, NoReturn

import rfc8785

from convoy_contracts.errors import DocumentMalformed

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_SAFE_INTEGER = 2**53 - 1

Json = Any
"""A parsed JSON value."""


def parse_json(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Json:
    """Parse strict JSON.

    Raises:
        DocumentMalformed: anything that the module docstring does not allow.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DocumentMalformed("not UTF-8", fix="Send UTF-8 JSON.") from error
    if len(text) > max_bytes:
        raise DocumentMalformed(f"more than {max_bytes} characters", fix="Send a smaller document.")
    _bound_depth(text)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_fraction,
            parse_constant=_fraction,
        )
    except DocumentMalformed:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentMalformed(f"not JSON: {error}", fix="Send one JSON value.") from error
    _check_strings(value)
    return value


def canonical_bytes(value: Json) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Raises:
        DocumentMalformed: the value has no canonical form (lone surrogate, integer of 2^53 or more, other types).
    """
    try:
        return rfc8785.dumps(value)
    except (
        rfc8785.CanonicalizationError,
        UnicodeError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise DocumentMalformed("the value has no canonical JSON form") from error


def digest(value: Json) -> str:
    """Return ``sha256:`` + lower-case hex of the canonical bytes of a value."""
    return "sha256:" + hashlib.sha256(canonical_bytes(value)).hexdigest()


def b64u(data: bytes) -> str:
    """Return base64url without padding (RFC 4648 §5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64u(text: str) -> bytes:
    """Read base64url without padding; refuses padding, other alphabets and stray bits.

    Raises:
        DocumentMalformed: not exactly what ``b64u`` writes.
    """
    try:
        data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise DocumentMalformed("not base64url without padding") from error
    if b64u(data) != text:
        raise DocumentMalformed("not base64url without padding")
    return data


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = sorted({key for key, _ in pairs if key in seen or seen.add(key)})  # type: ignore[func-returns-value]
        raise DocumentMalformed(f"a key stands twice in one object: {twice[0]!r}", fix="Keep one of them.")
    return made


def _integer(text: str) -> int:
    if len(text) > 17 or not -MAX_SAFE_INTEGER <= int(text) <= MAX_SAFE_INTEGER:
        raise DocumentMalformed("an integer of 2^53 or more", fix="Use integers below 2^53 or decimal strings.")
    return int(text)


def _fraction(text: str) -> NoReturn:
    raise DocumentMalformed(f"a number with fraction or exponent: {text[:40]}", fix="Use integers or decimal strings.")


def _bound_depth(text: str) -> None:
    """Refuse deep nesting before the parser recurses; brackets inside strings are skipped."""
    depth, in_string, escaped = 0, False, False
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    for char in text:
        if in_string:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == '"':
                in_string = False
        elif char == '"':
            in_string = True
        elif char in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise DocumentMalformed(f"nested deeper than {MAX_DEPTH}", fix="Flatten the document.")
        elif char in "]}":
            depth -= 1


def _check_strings(value: Json) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if item.isascii():
                continue
            if not unicodedata.is_normalized("NFC", item):
                raise DocumentMalformed(f"a string is not in Unicode NFC: {item[:40]!r}", fix="Normalise to NFC.")
            if any("\ud800" <= char <= "\udfff" for char in item):
                raise DocumentMalformed("a string holds a lone surrogate", fix="Remove it.")
        elif isinstance(item, Mapping):
            stack.extend(item.keys())
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
