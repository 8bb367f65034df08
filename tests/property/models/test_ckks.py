"""The backend without a trustee: CKKS sums equal plain ones within the stated tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convoy_models.accounting import MU2_UNITS
from convoy_models.errors import MessageMalformed, MessageMissing, MessageUnexpected, TagReused
from convoy_models.fixedpoint import Floats
from convoy_models.messages import Payload, relay
from convoy_models.noise import NoiseSource
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import open_sum
from convoy_models.sums.ckks import DEGREE, FLOOD, PARAMETERS, SLOTS, TOLERANCE, CkksSession, flooding_mu2
from convoy_models.testing import NoNoise, new_keys

OEM = "oem"


class Pairs:
    """A carmaker and insurers over CKKS, relayed in one process."""

    def __init__(self, insurers: list[str], flood: NoiseSource | None = None) -> None:
        keys = new_keys([OEM, *insurers])
        self.sessions = {
            party: CkksSession(
                "run-1", 1, keys[party], peers=insurers if party == OEM else [OEM], noise=NoNoise(), flood=flood
            )
            for party in keys
        }

    def deliver(self, replies: dict[str, dict[str, bytes]]) -> None:
        for party, blobs in relay({sender: Payload(blobs=b) for sender, b in replies.items()}).items():
            self.sessions[party].receive(blobs)

    def prepare(self, rows: dict[str, int], matrices: dict[tuple[str, str], Floats]) -> None:
        ids = {name: [bytes([k]) + n.to_bytes(15, "big") for n in range(r)] for k, (name, r) in enumerate(rows.items())}
        for name in rows:
            self.deliver({OEM: self.sessions[OEM].links(name, ids[name])})
            self.deliver({name: self.sessions[name].links(OEM, ids[name])})
        for name in rows:
            for party, peer in ((OEM, name), (name, OEM)):
                self.sessions[party].align(peer)
                self.sessions[party].hold(peer, matrices.get((party, peer)))
        self.deliver({p: s.matrix(0) for p, s in self.sessions.items()})

    def ask(self, query: PlannedQuery, given: dict[str, tuple[dict[str, Floats], float]]) -> Floats:
        self.deliver({p: self.sessions[p].open(query, *given[p]) for p in query.participants})
        self.deliver({p: self.sessions[p].share(query) for p in query.participants})
        return open_sum(query, {p: self.sessions[p].close(query) for p in query.participants})


def planned(kind: str, columns: tuple[int, int], width: int, matrix: Side, vectors: tuple[Side, ...]) -> PlannedQuery:
    return PlannedQuery(
        id=f"joint/{kind}", kind=kind, cohort="joint", module=matrix.role, purpose="model", sweep=1, group=0,  # type: ignore[arg-type]
        columns=columns, shape=(columns[1] - columns[0], width), clip=4.0, sigma=1.0, mu2=16.0, matrix=matrix, vectors=vectors,
    )  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(
    st.integers(1, 2), st.integers(1, 6000), st.integers(1, 3), st.integers(1, 2), st.booleans(), st.booleans(),
    st.floats(0.05, 2.0), st.integers(0, 2**32),
)  # fmt: skip
def test_a_ckks_sum_is_the_plain_sum_within_the_stated_tolerance(
    insurers: int, rows: int, columns: int, width: int, weighted: bool, at_oem: bool, cap: float, seed: int
) -> None:
    """DOT and WEIGHTED, one or two pairs, either side holding the matrix, more rows than a ciphertext holds."""
    rng = np.random.default_rng(seed)
    names = [f"insurer-{k}" for k in range(insurers)]
    counts = {name: max(1, rows // (k + 1)) for k, name in enumerate(names)}
    oem, side = Side("oem", (OEM,)), Side("insurer", tuple(names))
    matrix, vector = (oem, side) if at_oem else (side, oem)
    pairs, matrices = Pairs(names), {}
    for name in names:
        matrices[(OEM, name) if at_oem else (name, OEM)] = rng.random((counts[name], columns))
    pairs.prepare(counts, matrices)
    query = (
        planned("WEIGHTED", (0, columns), 1, matrix, (side, oem))
        if weighted
        else planned("DOT", (0, columns), width, matrix, (vector,))
    )
    given: dict[str, tuple[dict[str, Floats], float]] = {p: ({}, cap) for p in query.participants}
    expected = np.zeros(query.shape)
    for (party, peer), x in matrices.items():
        v = cap * rng.random((len(x), query.shape[1]))
        given[peer][0][party] = v
        a = cap * rng.random(len(x)) if weighted else np.ones(len(x))
        if weighted:
            given[party][0][peer] = a
        expected += x.T @ (v * a[:, None])
    answer = pairs.ask(query, given)
    slack = insurers * TOLERANCE + sum(counts.values()) * cap * 2 * 2.0**-13
    np.testing.assert_allclose(answer, expected.ravel(), rtol=0, atol=slack)


def test_flooding_costs_less_than_a_ledger_unit_and_no_trustee_is_needed() -> None:
    """The label sums of a tower of nine features, and 60 model sums together, stay below 1e-12 in mu^2."""
    labels = planned("DOT", (0, 31), 1, Side("oem", (OEM,)), (Side("insurer", ("a",)),))
    assert flooding_mu2(labels) * MU2_UNITS < 1
    assert sum(PARAMETERS["coeffModulusBits"]) <= 218  # type: ignore[arg-type]  # 128 bits at degree 8192


def shared_once(x: Floats, v: Floats, flood: NoiseSource | None) -> tuple[CkksSession, bytes]:
    """Return the vector holder and what the matrix holder sent it, opened."""
    pairs = Pairs(["a"], flood)
    pairs.prepare({"a": len(x)}, {(OEM, "a"): x})
    query = planned("DOT", (0, 1), 1, Side("oem", (OEM,)), (Side("insurer", ("a",)),))
    holder = pairs.sessions["a"]
    pairs.deliver({OEM: pairs.sessions[OEM].open(query, {}, 1.0), "a": holder.open(query, {OEM: v}, 1.0)})
    with pytest.raises(TagReused):
        holder.open(query, {OEM: v}, 1.0)
    pairs.deliver({OEM: pairs.sessions[OEM].share(query), "a": holder.share(query)})
    (raw,) = [v for (_, tag), v in holder._inbox.items() if tag == "share.joint/DOT"]
    return holder, raw[4:]


def polynomial(holder: CkksSession, raw: bytes) -> Floats:
    """Decrypt as an adversary does: every coefficient, in steps of the result's grid."""
    own = holder._own()
    plain = own._seal.Plaintext()
    own._decryptor.decrypt(own.ciphertext(raw, 1), plain)
    slots = np.array(own._encoder.decode_complex(plain)) * own._scale
    at = np.zeros(DEGREE, dtype=np.complex128)
    powers = np.array([pow(3, j, 2 * DEGREE) for j in range(SLOTS)])
    at[((1 - powers) // 2) % DEGREE] = slots
    at[((1 + powers) // 2) % DEGREE] = slots.conj()
    return np.real(np.fft.ifft(at) * np.exp(-1j * np.pi * np.arange(DEGREE) / DEGREE))


def test_every_coefficient_that_the_key_holder_decrypts_is_flooded() -> None:
    """Not only real slots: all 8192 coefficients have the flood's spread, and none of the column's structure."""
    x, v = np.ones((60, 1)), np.ones(60)
    found = polynomial(*shared_once(x, v, None))
    assert 0.95 < found.std() / FLOOD < 1.05
    assert 0.9 < np.abs(found[1:]).mean() / FLOOD / np.sqrt(2 / np.pi) < 1.1
    assert (
        0.9
        < np.abs(np.fft.fft(found)).mean()
        / np.abs(np.fft.fft(np.random.default_rng(1).normal(0, FLOOD, DEGREE))).mean()
        < 1.1
    )


def test_without_the_flood_the_key_holder_would_read_the_column() -> None:
    """Why step 3 adds F: at flood zero the slots are the rows, to a millionth."""
    x = np.random.default_rng(3).integers(0, 2, (60, 1)).astype(float)
    holder, raw = shared_once(x, np.ones(60), NoNoise())
    own = holder._own()
    plain = own._seal.Plaintext()
    own._decryptor.decrypt(own.ciphertext(raw, 1), plain)
    np.testing.assert_allclose(own._encoder.decode_double(plain)[:60], x[:, 0], atol=1e-3)


def test_two_answers_to_one_question_share_nothing() -> None:
    """A fresh Enc(0) and a fresh F: the second component differs too (it would be Enc(v) times x otherwise)."""
    x, v = np.ones((60, 1)), np.ones(60)
    pairs = Pairs(["a"])
    pairs.prepare({"a": 60}, {(OEM, "a"): x})
    oem, own = pairs.sessions[OEM], pairs.sessions["a"]._own()
    encryptor, cipher = own.encryptor_of(own.public_key()), own.ciphertext(own.encrypt(v), 2)
    zero = np.zeros(DEGREE, dtype=np.int64)
    first, second = (oem._own().product([(cipher, own.plain(x[:, 0]))], encryptor, zero) for _ in range(2))
    assert own.ciphertext(first, 1).data(1) != own.ciphertext(second, 1).data(1)
    assert abs(own.constant(first) - own.constant(second)) < 250  # the same sum, rounded twice


def test_foreign_bytes_and_missing_parts_are_refused() -> None:
    """No ciphertext, a context of rubbish, a step out of turn, a sum over three parties."""
    pairs = Pairs(["a"])
    pairs.prepare({"a": 60}, {(OEM, "a"): np.ones((60, 1))})
    query = planned("DOT", (0, 1), 1, Side("oem", (OEM,)), (Side("insurer", ("a",)),))
    pairs.sessions[OEM].open(query, {}, 1.0)
    with pytest.raises(MessageMissing):
        pairs.sessions[OEM].share(query)
    pairs.sessions[OEM]._inbox["a", "open.joint/DOT"] = b"\x00\x00\x00\x05rubbi"
    with pytest.raises(MessageMalformed):
        pairs.sessions[OEM].share(query)
    three = planned("TRILINEAR", (0, 1), 1, Side("oem", (OEM,)), (Side("insurer", ("a",)), Side("charging", ("c",))))
    with pytest.raises(MessageUnexpected):
        pairs.sessions[OEM].open(three, {}, 1.0)
