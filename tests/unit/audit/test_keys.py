"""Keys that must never be enrolled, and signatures of the three types."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

from convoy_audit.cosignature import message
from convoy_audit.errors import AuditError, KeyRejected, SignatureError
from convoy_audit.keys import SignatureType, check_ed25519_public, verify_ed25519
from convoy_audit.note import Signer, Verifier

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
CHECKPOINT = b"example.com/log\n1\n" + b"A" * 43 + b"=\n"

Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """Add two points of edwards25519 in affine coordinates (RFC 8032 §5.1.4)."""
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P
    return x, y


def low_order_points() -> set[Point]:
    """Derive the eight torsion points from the curve itself: l times any point has low order."""
    order = 2**252 + 27742317777372353535851937790883648493
    found: set[Point] = set()
    for y in range(2, 40):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        x = pow(square, (P + 3) // 8, P)
        if (x * x - square) % P:
            x = x * pow(2, (P - 1) // 4, P) % P
        if (x * x - square) % P:
            continue
        total, point, times = (0, 1), (x, y), order
        while times:
            if times & 1:
                total = add(total, point)
            point, times = add(point, point), times >> 1
        found.add(total)
        if len(found) == 8:
            break
    return found


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def test_the_eight_points_of_low_order_are_refused_in_every_encoding() -> None:
    """Canonical or not, with either sign bit."""
    points = low_order_points()
    assert len(points) == 8
    for _, y in points:
        for value in {y, y + P}:
            if value >= 2**255:
                continue
            for sign in (0, 1 << 255):
                with pytest.raises(KeyRejected):
                    check_ed25519_public((value | sign).to_bytes(32, "little"))


def test_openssl_would_have_accepted_such_a_key() -> None:
    """One signature fits every message: why the check exists, and that it does something."""
    neutral = encode((0, 1))
    forged = neutral + bytes(32)  # R = neutral, s = 0
    Ed25519PublicKey.from_public_bytes(neutral).verify(forged, b"I agree")
    Ed25519PublicKey.from_public_bytes(neutral).verify(forged, b"I never agreed")
    with pytest.raises(KeyRejected):
        verify_ed25519(neutral, b"I agree", forged)


def test_a_key_that_is_not_canonical_is_refused() -> None:
    """y of 2^255 - 19 and more."""
    for value in range(P, 2**255):
        with pytest.raises(KeyRejected, match="not canonical"):
            check_ed25519_public(value.to_bytes(32, "little"))


def test_a_key_off_the_curve_is_refused() -> None:
    """About half of all y have no x."""
    refused = 0
    for y in range(2, 42):
        try:
            check_ed25519_public(y.to_bytes(32, "little"))
        except KeyRejected:
            refused += 1
    assert 10 < refused < 30


def test_every_fresh_key_is_accepted() -> None:
    """No honest key is refused."""
    for _ in range(50):
        check_ed25519_public(Signer.generate("a", SignatureType.ED25519).verifier.public)


@pytest.mark.parametrize("kind", list(SignatureType))
def test_a_signature_holds_for_its_text_and_no_other(kind: SignatureType) -> None:
    """All three types; the text, the key and the signature each changed once."""
    signer, other = Signer.generate("w", kind), Signer.generate("w", kind)
    line = signer.line(CHECKPOINT, 1_700_000_000)
    from convoy_audit.note import parse_signature_lines

    (parsed,) = parse_signature_lines(line.encode())
    time_s = signer.verifier.verify(CHECKPOINT, parsed.signature)
    assert time_s == (1_700_000_000 if kind.is_cosignature else None)
    flipped = bytes([parsed.signature[0] ^ 1]) + parsed.signature[1:]
    for verifier, text, signature in (
        (signer.verifier, CHECKPOINT.replace(b"\n1\n", b"\n2\n"), parsed.signature),
        (other.verifier, CHECKPOINT, parsed.signature),
        (signer.verifier, CHECKPOINT, flipped),
        (signer.verifier, CHECKPOINT, parsed.signature[:-1]),
        (signer.verifier, CHECKPOINT, parsed.signature + b"\0"),
    ):
        with pytest.raises(SignatureError):
            verifier.verify(text, signature)


def test_the_ed25519_cosignature_is_made_over_the_published_message() -> None:
    """Header, time line, whole note text (tlog-cosignature)."""
    signed = message(SignatureType.COSIGNATURE_ED25519, "w", CHECKPOINT, 1679315147)
    assert signed == b"cosignature/v1\ntime 1679315147\n" + CHECKPOINT


def test_the_ml_dsa_cosignature_is_made_over_the_published_structure() -> None:
    """Built here by hand from the specification, then verified with the bare primitive."""
    signer = Signer.generate("example.com/w", SignatureType.COSIGNATURE_ML_DSA_44)
    from convoy_audit.note import parse_signature_lines

    (parsed,) = parse_signature_lines(signer.line(CHECKPOINT, 7).encode())
    expected = (
        b"subtree/v1\n\x00"
        + bytes([13])
        + b"example.com/w"
        + (7).to_bytes(8, "big")
        + bytes([15])
        + b"example.com/log"
        + (0).to_bytes(8, "big")
        + (1).to_bytes(8, "big")
        + bytes(32)
    )
    assert parsed.signature[:8] == (7).to_bytes(8, "big")
    public = MLDSA44PublicKey.from_public_bytes(signer.verifier.public)
    public.verify(parsed.signature[8:], expected)


def test_an_unknown_signature_type_is_refused() -> None:
    """0x02 (ECDSA) and 0xff are valid elsewhere, not here."""
    signer = Signer.generate("a", SignatureType.ED25519)
    import base64
    import hashlib

    for kind in (0x00, 0x02, 0x05, 0xFF):
        body = bytes([kind]) + signer.verifier.public
        key_id = hashlib.sha256(b"a\n" + body).digest()[:4].hex()
        with pytest.raises(KeyRejected, match="unknown type"):
            Verifier.parse(f"a+{key_id}+{base64.b64encode(body).decode()}")


@pytest.mark.parametrize("text", ["", "a", "a+b", "+12345678+AA==", "a b+12345678+AA==", "a+1+A" * 99])
def test_what_is_no_key_raises_our_error(text: str) -> None:
    """Never a bare ValueError."""
    with pytest.raises(AuditError):
        Verifier.parse(text)
    with pytest.raises(AuditError):
        Signer.parse("PRIVATE+KEY+" + text)
