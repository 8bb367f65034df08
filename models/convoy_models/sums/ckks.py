"""BILINEAR sums without a trustee: CKKS under the vector holder's key, with noise flooding.

The second backend behind the interface of ``PartySession``. P holds a matrix X (and its factor b), Q a vector v and THE
SECRET KEY, born in its session and never written anywhere.

1. ``matrix``: Q -> P: Q's public key (0.4 MB).
2. ``open``:   Q -> P: ``Enc(v)``, 4096 rows a ciphertext (0.26 MB).
3. ``share``:  P -> Q: for every column ``round((sum over ciphertexts of Enc(v) * (x b) + Enc(0)) / q) + F``
   (0.13 MB). P knows its own x and b, so a WEIGHTED sum costs what a DOT costs.
4. ``close``:  Q decrypts to a polynomial whose constant coefficient is ``sum / 4096 + F_0`` (the sum over all slots
   is N/2 times the constant coefficient); P keeps ``-F_0``. Both become elements of the same ring as the trustee's
   shares, get the same noise and the same masks.

Parameters (``PARAMETERS``): ring degree N = 8192, modulus 60 + 60 + 60 = 180 bits, below the 218 that the
HomomorphicEncryption.org standard (2018, Table 1, ternary secrets) allows at this degree for 128 bits of security.

Why Q learns nothing of X but its share. Whoever holds the secret key reads not only rounded slots but the whole
decrypted polynomial, to the last bit, and knows its own encryption errors; a mask in the slots alone would leave X in
the imaginary parts, in the low bits and in the second ciphertext component. Therefore (i) ``Enc(0)``, fresh under Q's
public key, makes that component pseudorandom (ring-LWE), and (ii) F has exact integer coefficients, ALL of them
drawn from the discrete Gaussian of scale ``FLOOD``, and is added after the last rounding. What Q reads is then a
function of ``(own share of P's message, polynomial + F)``: one more Gaussian mechanism, of

    mu = (clip / sqrt(N/2) 2^26 + 2^12 sqrt(size)) / FLOOD                                          (*)

for replacing one person's values at P by zeros: a person moves the polynomial of a column by at most its factor in one
slot, of L2 norm ``sqrt(2/N)`` in coefficients, and the rounding before F, which another row changes everywhere, by an
L2 norm of about 2^11.4 (21 in each of N coefficients, twice); 2^12 bounds it in all but a negligible share of keys.
``flooding_mu2`` is (*) squared: below one ledger unit (1e-12) for every clip below
60. It holds towards Q only; everybody else sees noisy sums.

The opened sum carries the rounding error of step 3, standard deviation 0.0013, below ``TOLERANCE`` in every
coordinate and pair (12 standard deviations).

Semi-honest, as everything here: a malicious Q could send ciphertexts that are no encryptions of a capped vector (with
4096 slots it could ask for one row); commit-and-audit checks what Q committed to, not what it encrypted. TRILINEAR
needs the trustee.

Source: Cheon, Kim, Kim, Song 2017 (CKKS); Li and Micciancio 2021, eprint 2020/1533 (CKKS results must be flooded);
Gentry 2009 (circuit privacy by flooding). TenSEAL 0.3.18 (its ``sealapi``: Microsoft SEAL).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import MessageMalformed, MessageUnexpected, ShapeMismatch
from convoy_models.fixedpoint import FACTOR_BITS, MATRIX_BITS, Floats, Words, decode
from convoy_models.masks import PairKeys
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.plan import PlannedQuery
from convoy_models.sums.opening import fraction_bits
from convoy_models.sums.session import PartySession

_T = TypeVar("_T")
_KEY: Final = "open.key"

DEGREE: Final = 8192
SLOTS: Final = DEGREE // 2
VECTOR_BITS: Final = 46
COLUMN_BITS: Final = 40
RESULT_BITS: Final = VECTOR_BITS + COLUMN_BITS - 60
"""Scale of what Q decrypts, after one rescaling by a prime of 60 bits."""
FLOOD: Final = 2.0**46
"""Scale of F. Integers of this size survive encoding in doubles exactly (error 2^-5 of a step), larger ones do not."""
TOLERANCE: Final = 2.0**-6
"""Bound of the difference to the plain sum in one coordinate and pair."""
PARAMETERS: Final = {
    "scheme": "CKKS", "polyModulusDegree": DEGREE, "coeffModulusBits": [60, 60, 60], "vectorScaleBits": VECTOR_BITS,
    "columnScaleBits": COLUMN_BITS, "securityBits": 128, "floodBits": 46,
}  # fmt: skip


def flooding_mu2(query: PlannedQuery) -> float:
    """Return the square of (*): what a BILINEAR query costs a person at P towards the holder of the secret key."""
    moved = query.clip * math.sqrt(2 / DEGREE) * 2.0**RESULT_BITS + 2.0**12 * math.sqrt(query.size)
    return (moved / FLOOD) ** 2


class CkksSession(PartySession):
    """A data holder's state machine over CKKS; methods and order as ``PartySession``, no trustee.

    Two differences: ``open`` takes a DOT query too (the vector at its holder, ``{}`` at the matrix
    holder), and ``share`` takes no vectors.

    Args:
        run: uid of the run.
        attempt: number of the try.
        keys: own keys under the contract (seals, masks).
        flood: source of F; the production sampler unless a test says otherwise.
        rest: as for ``PartySession``; a trustee has no part in it.
    """

    opens_dot = True

    def __init__(
        self, run: str, attempt: int, keys: PairKeys, *, flood: NoiseSource | None = None, **rest: Any
    ) -> None:
        super().__init__(run, attempt, keys, **(rest | {"trustee": ""}))
        self._flood = flood or DiscreteGaussian()
        self._scheme: _Scheme | None = None
        self._factors: dict[tuple[str, str], Words] = {}
        self._kept: dict[tuple[str, str], Words] = {}

    def _steps_of(self, query: PlannedQuery) -> tuple[str, ...]:
        return ("close",) if query.kind == "LOCAL" else ("open", "share", "close")

    @property
    def chunks(self) -> int:
        """One exchange: the public keys."""
        return 1

    def matrix(self, chunk: int) -> dict[str, bytes]:
        """Return own public key for every peer; a matrix never travels."""
        blobs: dict[str, bytes] = {}
        for name, pair in self._pairs.items():
            if chunk == 0 and name not in self._shaped:
                self._shaped.add(name)
                blobs |= self._blob(pair.peer, _KEY, self._own().public_key())
        return blobs

    def open(self, query: PlannedQuery, factors: Mapping[str, Floats], cap: float) -> dict[str, bytes]:
        """Step 2: encrypt the vector for its matrix holders; a matrix holder keeps its factor for ``share``."""
        self._check(query)
        self._step(query, "open")
        blobs: dict[str, bytes] = {}
        if self._holds_matrix(query) and query.kind == "DOT":
            if factors:
                raise ShapeMismatch(f"query {query.id} takes no factor at the matrix holder.", party=self.party)
            self._mark(query, "open")
            return {}
        vectors = self._encode(query, factors, cap)
        self._mark(query, "open")
        for peer, words in vectors.items():
            if self._holds_matrix(query):
                self._factors[query.id, peer] = words
            else:
                if len(words) != query.shape[1]:
                    raise ShapeMismatch(f"query {query.id} expects {query.shape[1]} columns.", party=self.party)
                blobs |= self._blob(peer, f"open.{query.id}", self._encrypt(words))
        return blobs

    def share(
        self, query: PlannedQuery, vectors: Mapping[str, Floats] | None = None, cap: float = 1.0
    ) -> dict[str, bytes]:
        """Step 3: the matrix holder returns the flooded products; the vector holder does nothing."""
        self._check(query)
        self._step(query, "share")
        if vectors:
            raise ShapeMismatch(f"query {query.id} took its vector at open.", party=self.party)
        blobs: dict[str, bytes] = {}
        if self._holds_matrix(query):
            for peer in self._peers(query):
                self._peek(peer, _KEY)
                self._peek(peer, f"open.{query.id}")
            for peer in self._peers(query):
                blobs |= self._blob(peer, f"share.{query.id}", self._multiply(query, peer))
        self._mark(query, "share")
        return blobs

    # --- inside -----------------------------------------------------------------------------

    def _check(self, query: PlannedQuery) -> None:
        if query.kind not in ("DOT", "WEIGHTED"):
            raise MessageUnexpected(f"a {query.kind} query has no such step under CKKS.", party=self.party)

    def _all_needed(self, query: PlannedQuery) -> list[tuple[str, bool, str, str]]:
        if self._holds_matrix(query):
            return []
        return [(peer, True, peer, f"share.{query.id}") for peer in self._peers(query)]

    def check_ready(self, query: PlannedQuery, bound: float | None = None) -> None:
        """As ``PartySession.check_ready``; the vector holder needs no matrix."""
        self._step(query, "close")
        self._side(query)
        if query.kind != "LOCAL":
            for _, _, sender, tag in self._all_needed(query):
                self._peek(sender, tag)
            self._check_rows(query, bound)

    def _share_of(self, query: PlannedQuery, peer: str) -> Words:
        if self._holds_matrix(query):
            return self._kept.pop((query.id, peer))
        return self._decrypt(query, peer, self._take(peer, f"share.{query.id}"))

    def _own(self) -> _Scheme:
        if self._scheme is None:
            self._scheme = _Scheme()
        return self._scheme

    def _encrypt(self, words: Words) -> bytes:
        """Encrypt (J, rows), every column in blocks of 4096 rows, length-prefixed."""
        own, out = self._own(), bytearray()
        for column in decode(words, FACTOR_BITS):
            for start in range(0, len(column), SLOTS):
                out += _prefixed(own.encrypt(column[start : start + SLOTS]))
        return bytes(out)

    def _multiply(self, query: PlannedQuery, peer: str) -> bytes:
        """Step 3 for one pair: one flooded ciphertext a column; keep own share."""
        pair, own, width = self._pairs[peer], self._own(), query.shape[1]
        blocks = math.ceil(pair.rows / SLOTS)
        encryptor = _guarded(peer, own.encryptor_of, self._peek(peer, _KEY))
        parts = _split(self._take(peer, f"open.{query.id}"), blocks * width, peer)
        ciphers = [_guarded(peer, own.ciphertext, raw, 2) for raw in parts]
        factor = self._factors.pop((query.id, peer), None)
        weights = np.ones(pair.rows) if factor is None else decode(factor[0], FACTOR_BITS)
        share, out = np.zeros(query.shape, dtype=np.uint64), bytearray()
        for row in range(query.shape[0]):
            x = np.ldexp(pair.own_column(query, row).astype(np.float64), -MATRIX_BITS) * weights
            plain = [own.plain(x[block * SLOTS : (block + 1) * SLOTS]) for block in range(blocks)]
            for column in range(width):
                terms = list(zip(ciphers[column * blocks : (column + 1) * blocks], plain, strict=True))
                flood = self._flood.draw(FLOOD, DEGREE)
                out += _prefixed(_guarded(peer, own.product, terms, encryptor, flood))
                share[row, column] = own.to_ring(-int(flood[0]), query)
        self._kept[query.id, peer] = share
        return bytes(out)

    def _decrypt(self, query: PlannedQuery, peer: str, plain: bytes) -> Words:
        own, share = self._own(), np.zeros(query.size, dtype=np.uint64)
        for place, raw in enumerate(_split(plain, query.size, peer)):
            share[place] = own.to_ring(_guarded(peer, own.constant, raw), query)
        return share


class _Scheme:
    """One session's keys and encoder over Microsoft SEAL (TenSEAL's ``sealapi``).

    LIMIT: this binding reads and writes objects as files only; they pass through a private temporary folder. The
    secret key never does.
    """

    def __init__(self) -> None:
        import tenseal.sealapi as seal  # heavy, and an extra: never at the top of a module

        self._seal: Any = seal
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(DEGREE)
        primes = seal.CoeffModulus.Create(DEGREE, [60, 60, 60])
        parameters.set_coeff_modulus(primes)
        self._dropped = int(primes[1].value())
        self._context: Any = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self._keys: Any = seal.KeyGenerator(self._context)
        self._encoder: Any = seal.CKKSEncoder(self._context)
        self._evaluator: Any = seal.Evaluator(self._context)
        self._encryptor: Any = seal.Encryptor(self._context, self._keys.secret_key())
        self._decryptor: Any = seal.Decryptor(self._context, self._keys.secret_key())
        self._zero: Any = seal.Plaintext()
        self._encoder.encode(0.0, 2.0 ** (VECTOR_BITS + COLUMN_BITS), self._zero)

    def public_key(self) -> bytes:
        """Return own public key."""
        key = self._seal.PublicKey()
        self._keys.create_public_key(key)
        return self._saved(key)

    def encryptor_of(self, public_key: bytes) -> Any:
        """Return what encrypts under a peer's key."""
        key = self._seal.PublicKey()
        self._load(key, public_key)
        return self._seal.Encryptor(self._context, key)

    def encrypt(self, values: Floats) -> bytes:
        """Return up to 4096 numbers under own secret key."""
        cipher = self._seal.Ciphertext(self._context)
        self._encryptor.encrypt_symmetric(self._encoded(values, VECTOR_BITS), cipher)
        return self._saved(cipher)

    def plain(self, values: Floats) -> Any:
        """Return up to 4096 numbers of a column, or None where all are zero (SEAL multiplies by nothing else)."""
        return self._encoded(values, COLUMN_BITS) if np.any(values) else None

    def ciphertext(self, raw: bytes, primes: int) -> Any:
        """Read a ciphertext of two components over so many primes.

        Raises:
            ValueError: it is none.
        """
        cipher = self._seal.Ciphertext()
        self._load(cipher, raw)
        scale = 2.0**VECTOR_BITS if primes == 2 else self._scale
        if cipher.size() != 2 or cipher.coeff_modulus_size() != primes or not math.isclose(cipher.scale, scale):
            raise ValueError("a ciphertext of another kind")
        return cipher

    def product(self, terms: list[tuple[Any, Any]], encryptor: Any, flood: NDArray[np.int64]) -> bytes:
        """Return ``round((sum of ciphertext * column + Enc(0)) / q) + F``."""
        total = self._seal.Ciphertext(self._context)
        encryptor.encrypt(self._zero, total)
        for cipher, plain in terms:
            if plain is not None:
                term = self._seal.Ciphertext(self._context)
                self._evaluator.multiply_plain(cipher, plain, term)
                self._evaluator.add_inplace(total, term)
        self._evaluator.rescale_to_next_inplace(total)
        mask = self._seal.Plaintext()
        self._encoder.encode((_slots(flood) / total.scale).tolist(), total.parms_id(), total.scale, mask)
        self._evaluator.add_plain_inplace(total, mask)
        return self._saved(total)

    def constant(self, raw: bytes) -> int:
        """Decrypt; return the constant coefficient.

        Raises:
            ValueError: it does not decrypt to a flooded sum.
        """
        plain = self._seal.Plaintext()
        self._decryptor.decrypt(self.ciphertext(raw, 1), plain)
        value = math.fsum(self._encoder.decode_double(plain)) / SLOTS * self._scale
        if not abs(value) < 2.0**52:
            raise ValueError("not a flooded sum")
        return round(value)

    def to_ring(self, constant: int, query: PlannedQuery) -> np.uint64:
        """Return ``4096 constant / scale`` as an element of the query's ring."""
        numerator, shift = (constant * SLOTS * self._dropped) << fraction_bits(query), VECTOR_BITS + COLUMN_BITS
        return np.uint64(((numerator + (1 << (shift - 1))) >> shift) % (1 << 64))

    @property
    def _scale(self) -> float:
        return 2.0 ** (VECTOR_BITS + COLUMN_BITS) / self._dropped

    def _encoded(self, values: Floats, bits: int) -> Any:
        plain = self._seal.Plaintext()
        self._encoder.encode(np.pad(values, (0, SLOTS - len(values))).tolist(), 2.0**bits, plain)
        return plain

    def _saved(self, thing: Any) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "object")
            thing.save(str(path))
            return path.read_bytes()

    def _load(self, thing: Any, raw: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "object")
            path.write_bytes(raw)
            thing.load(self._context, str(path))


def _slots(coefficients: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Return the values of an integer polynomial at SEAL's slots, the roots ``exp(i pi 3^j / N)``."""
    k = np.arange(DEGREE)
    at = np.fft.fft(coefficients * np.exp(1j * np.pi * k / DEGREE))  # at[m]: the root of exponent 1 - 2m
    powers = np.array([pow(3, j, 2 * DEGREE) for j in range(SLOTS)])
    values: NDArray[np.complex128] = at[((1 - powers) // 2) % DEGREE]
    return values


def _prefixed(raw: bytes) -> bytes:
    return len(raw).to_bytes(4, "big") + raw


def _split(plain: bytes, count: int, peer: str) -> list[bytes]:
    """Read length-prefixed parts, exactly ``count`` of them."""
    parts: list[bytes] = []
    at = 0
    while at < len(plain) and len(parts) < count:
        size = int.from_bytes(plain[at : at + 4], "big")
        parts.append(plain[at + 4 : at + 4 + size])
        at += 4 + size
    if at != len(plain) or len(parts) != count:
        raise MessageMalformed(f"a blob does not hold {count} ciphertexts.", party=peer)
    return parts


def _guarded(peer: str, make: Callable[..., _T], *given: Any) -> _T:
    """Call the library on a peer's bytes; whatever it raises is a malformed message."""
    try:
        return make(*given)
    except (ValueError, RuntimeError, TypeError, IndexError) as error:
        raise MessageMalformed("a ciphertext or key cannot be read.", party=peer) from error
