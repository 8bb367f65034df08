"""Read JSON strictly and write it canonically (RFC 8785); base64 and digests in one spelling.

    parse_json(data: bytes | str) -> Json    no duplicate key, no NaN; numbers as Python reads them
    parse_canonical(data: bytes) -> dict[str, Json]   canonical bytes of one object, integers only
    canonical_bytes(value) -> bytes
    digest(data: bytes) -> "sha256:…"
    b64(data) / unb64(text)       RFC 4648 §4, padded, canonical
    b64u(data) / unb64u(text)     RFC 4648 §5, unpadded, canonical
    is_version(given, version) -> bool    octets(given, what) -> bytes  what a caller passed as a file: bytes, or text as UTF-8

Everything raises ``FormatError``. This module repeats a little of ``convoy_contracts.canonical`` on
purpose: the verifier installs alone and shares no code with what it verifies.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import rfc8785

from convoy_audit.errors import FormatError

Json: TypeAlias = Any
MAX_INTEGER: Final = 2**53 - 1
MAX_DIGITS: Final = 16
DIGEST_PATTERN: Final = re.compile(r"sha256:[0-9a-f]{64}")


def parse_json(data: bytes | str) -> Json:
    """Parse JSON text.

    Raises:
        FormatError: not UTF-8, not JSON, a key twice in one object, NaN or Infinity, a number beyond
            the range of a double, or nested too deep.
    """
    return _decode(data, _STRICT)


def parse_canonical(data: bytes) -> dict[str, Json]:
    """Parse one object and check that these bytes are its RFC 8785 form, with 53-bit integers only.

    Raises:
        FormatError: as ``parse_json``; or not an object, a fraction, an integer too large, a key
            that is not ASCII, or other bytes than the canonical ones.
    """
    if not isinstance(data, bytes):
        raise FormatError(f"canonical JSON is bytes, not {type(data).__name__}")
    value = _quick(data)
    if value is None:
        value = _decode(data, _PLAIN)
    if not isinstance(value, dict):
        raise FormatError("not a JSON object")
    # With ASCII keys and integers only, this is RFC 8785, and ten times faster; a property
    # test compares the two.
    try:
        again = _encode(value).encode()
    except UnicodeEncodeError:
        raise FormatError("a lone surrogate in a string") from None
    if again != data:
        raise FormatError("not the canonical (RFC 8785) bytes of this JSON")
    return value


def canonical_bytes(value: Json) -> bytes:
    """Return the RFC 8785 bytes of a JSON value.

    Raises:
        FormatError: the value cannot be canonical JSON.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, ValueError, TypeError, RecursionError) as error:
        # ValueError: a lone surrogate, or an integer of thousands of digits, which cannot be shown either.
        raise FormatError(f"no canonical JSON: {str(error)[:120]}") from None


def is_version(given: Json, version: int) -> bool:
    """Tell whether a member ``v`` is this version; to Python ``true`` would be 1."""
    return given == version and given is not True


def octets(given: bytes | str, what: str) -> bytes:
    """Return a file's content as bytes; text is taken as UTF-8.

    Raises:
        FormatError: neither bytes nor text, or text with a lone surrogate.
    """
    if isinstance(given, str):
        try:
            return given.encode("utf-8")
        except UnicodeEncodeError:
            raise FormatError(f"{what} that is not UTF-8") from None
    if not isinstance(given, bytes):
        raise FormatError(f"{what} that is {type(given).__name__}, neither bytes nor text")
    return given


def digest(data: bytes) -> str:
    """Return ``sha256:`` and the hex SHA-256 of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Tell whether a text is spelled as ``digest`` spells it."""
    return DIGEST_PATTERN.fullmatch(text) is not None


def b64(data: bytes) -> str:
    """Return standard base64 with padding."""
    return base64.b64encode(data).decode("ascii")


def unb64(text: str | bytes) -> bytes:
    """Decode standard base64 in its one canonical spelling.

    Raises:
        FormatError: anything else, loose trailing bits included.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormatError("not base64") from None
    if base64.b64encode(data) != (text.encode("ascii") if isinstance(text, str) else bytes(text)):
        raise FormatError("not canonical base64")
    return data


def loose_unb64(text: str) -> bytes:
    """Decode standard base64 as many decoders do: the spare bits of the last character may be anything.

    Raises:
        FormatError: anything else.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("not base64") from None
    again = b64(data)
    if len(again) != len(text) or again.count("=") != text.count("="):
        raise FormatError("not canonical base64")
    return data


def b64u(data: bytes) -> str:
    """Return URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def unb64u(text: str) -> bytes:
    """Decode URL-safe base64 without padding, in its one canonical spelling.

    Raises:
        FormatError: anything else.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError, TypeError):
        raise FormatError("not base64url") from None
    if b64u(data) != text:
        raise FormatError("not canonical base64url")
    return data


def decimal(text: str, what: str, most: int = 2**63 - 1) -> int:
    """Read an ASCII decimal without leading zeroes.

    Raises:
        FormatError: anything else, or more than ``most``.
    """
    if (
        not isinstance(text, str)
        or not (0 < len(text) <= 20 and text.isascii() and text.isdigit())
        or (len(text) > 1 and text[0] == "0")
    ):
        raise FormatError(f"{what} is not a decimal number")
    number = int(text)
    if number > most:
        raise FormatError(f"{what} is too large")
    return number


def _decode(data: bytes | str, decoder: json.JSONDecoder) -> Json:
    if not isinstance(data, bytes | str):
        raise FormatError(f"JSON is bytes or text, not {type(data).__name__}")
    try:
        return decoder.decode(data.decode("utf-8") if isinstance(data, bytes) else data)
    except UnicodeDecodeError:
        raise FormatError("not UTF-8") from None
    except RecursionError:
        raise FormatError("JSON nested too deep") from None
    except ValueError as error:  # JSONDecodeError, or an integer with thousands of digits
        raise FormatError(f"not strict JSON: {str(error)[:120]}") from None


def _quick(data: bytes) -> Json:
    """Parse ASCII; None leaves it to the slow way, which names what is wrong.

    A key that stands twice, and a key that is not ASCII but escaped, do not come out as the same bytes again, so the
    comparison that follows finds them.
    """
    if not data.isascii():
        return None
    text = data.decode("ascii")
    try:
        value, end = _QUICK.scan_once(text, 0)  # type: ignore[attr-defined]
    except (StopIteration, ValueError, RecursionError):
        return None
    return value if end == len(text) else None


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice in one object")
    return found


def _unique_ascii(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    for key, _ in pairs:
        if not key.isascii():
            raise ValueError("a key that is not ASCII")
    return _unique(pairs)


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is beyond the range of a double")
    return number


def _no_fraction(text: str) -> Json:
    raise ValueError(f"{text[:20]} is not an integer")


def _integer(text: str) -> int:
    if len(text) < MAX_DIGITS or (len(text) <= MAX_DIGITS + 1 and -MAX_INTEGER <= int(text) <= MAX_INTEGER):
        return int(text)
    raise ValueError("an integer of more than 53 bits")


def _encode(value: Json) -> str:
    return "".join(_CANONICAL.iterencode(value)) if _CHUNKS is None else "".join(_CHUNKS(value, 0))


def _never(value: Json) -> Json:
    raise TypeError(f"{type(value).__name__} is not JSON")


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))
# The encoder that ``JSONEncoder`` builds anew for every value, built once; None where the C module is absent.
_MAKE: Final = getattr(json.encoder, "c_make_encoder", None)
_CHUNKS: Final[Callable[[Json, int], tuple[str, ...]] | None] = _MAKE and _MAKE(
    None, _never, json.encoder.encode_basestring, None, ":", ",", True, False, False
)
_QUICK: Final = json.JSONDecoder(parse_constant=_no_constant, parse_float=_no_fraction, parse_int=_integer)
_STRICT: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
_PLAIN: Final = json.JSONDecoder(
    object_pairs_hook=_unique_ascii, parse_constant=_no_constant, parse_float=_no_fraction, parse_int=_integer
)
