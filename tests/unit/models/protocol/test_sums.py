"""The steps of a query: each once, in order, complete, or refused with party and cause."""

from __future__ import annotations

import dataclasses
import doctest

import numpy as np
import pytest
from scipy.stats import chi2

from convoy_models import sums
from convoy_models.errors import (
    LinksRefused,
    MessageMalformed,
    MessageMissing,
    MessageUnexpected,
    ModelsError,
    RingOverflow,
    SealBroken,
    ShapeMismatch,
    TagReused,
    ValueRefused,
)
from convoy_models.masks import PairKeys
from convoy_models.messages import Payload, relay
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import Attempt, DealerSession, PartySession, clipped_sum, open_sum
from convoy_models.sums.pair import Pair
from convoy_models.testing import MemoryFederation, NoNoise, SeededNoise, new_keys

OEM, INSURER, TRUSTEE = "oem", "insurer-a", "trustee"
ROWS, COLUMNS = 120, 4
IDS = [n.to_bytes(16, "big") for n in range(ROWS)]


def planned(kind: str, **changes: object) -> PlannedQuery:
    """A query between the carmaker (matrix) and one insurer."""
    oem, insurer = Side("oem", (OEM,)), Side("insurer", (INSURER,))
    vectors = {"LOCAL": (), "DOT": (insurer,), "WEIGHTED": (insurer, oem)}[kind]
    query = PlannedQuery(
        id=f"joint/{kind}", kind=kind, cohort="joint", module="oem", purpose="model", sweep=1,
        group=0, columns=(1, 3), shape=(2, 1), clip=1.0, sigma=1.0, mu2=1.0, matrix=oem,
        vectors=vectors,
    )  # fmt: skip
    return dataclasses.replace(query, **changes)


def ready(noise: object = None, **options: object) -> MemoryFederation:
    """A federation with aligned rows and exchanged matrices."""
    source = noise or NoNoise()
    federation = MemoryFederation({OEM: source, INSURER: source}, [(OEM, INSURER)], **options)
    federation.align({(OEM, INSURER): IDS, (INSURER, OEM): IDS[::-1]})
    federation.hold({(OEM, INSURER): np.full((ROWS, COLUMNS), 0.5)})
    return federation


def factors(size: int = ROWS) -> dict[tuple[str, str], np.ndarray]:
    """One factor at each end."""
    return {(OEM, INSURER): np.full(size, 0.5), (INSURER, OEM): np.full(size, 0.25)}


VECTOR = {(INSURER, OEM): np.ones(ROWS)}


def test_one_run_answers_several_queries_with_one_masked_matrix() -> None:
    """DOT, WEIGHTED and LOCAL in turn; the matrix is sent once."""
    federation = ready()
    sent = federation.relayed_bytes
    dot = planned("DOT")
    assert open_sum(dot, federation.ask(dot, values=VECTOR)).tolist() == [60.0, 60.0]
    weighted = planned("WEIGHTED")
    assert open_sum(weighted, federation.ask(weighted, values=factors())).tolist() == [7.5, 7.5]
    local = planned("LOCAL", matrix=Side("insurer", (INSURER,)))
    answer = federation.ask(local, local={INSURER: np.array([1.0, -2.0])})
    assert open_sum(local, answer).tolist() == [1.0, -2.0]
    assert federation.relayed_bytes - sent < 5 * 8 * 150 + 1000


def test_noise_is_added_at_every_node_by_the_honesty_rule() -> None:
    """Two sides with one party each: variance 2 sigma^2 on a sum of zeros."""
    federation = ready(SeededNoise(3))
    query = planned("DOT", columns=(0, 4), shape=(4, 500), sigma=5.0)
    values = {(INSURER, OEM): np.zeros((ROWS, 500))}
    noise = open_sum(query, federation.ask(query, values=values))
    assert noise.std() == pytest.approx(5 * np.sqrt(2), rel=0.1)


@pytest.mark.parametrize("step", ["share", "close", "matrix", "hold", "deal", "open"])
def test_a_step_taken_twice_in_an_attempt_is_refused(step: str) -> None:
    """Pads and masks are used once; the second try needs a new attempt."""
    federation = ready()
    query = planned("WEIGHTED")
    federation.ask(query, values=factors())
    oem = federation.sessions[OEM]
    again = {
        "open": lambda: oem.open(query, {INSURER: np.ones(ROWS)}, 1.0),
        "share": lambda: oem.share(query),
        "close": lambda: oem.close(query),
        "matrix": lambda: oem.matrix(0),
        "hold": lambda: oem.hold(INSURER, np.zeros((ROWS, COLUMNS))),
        "deal": lambda: federation.dealer.deal(query),
    }[step]
    with pytest.raises(TagReused):
        again()


def test_the_same_id_for_another_query_is_refused() -> None:
    """A coordinator cannot ask other columns under a pad that is in use."""
    federation = ready()
    session = federation.sessions[INSURER]
    session.share(planned("DOT"), {OEM: np.ones(ROWS)})
    with pytest.raises(TagReused):
        session.close(planned("DOT", columns=(0, 2)))


@pytest.mark.parametrize("step", ["share", "close"])
def test_a_step_out_of_turn_is_refused(step: str) -> None:
    """WEIGHTED is open, share, close."""
    session = ready().sessions[OEM]
    with pytest.raises(MessageMissing, match="comes first"):
        getattr(session, step)(planned("WEIGHTED"))


def test_a_missing_part_is_named_before_anything_is_spent() -> None:
    """check_ready is what a node calls before its ledger."""
    federation = ready()
    query = planned("DOT")
    oem, insurer = federation.sessions[OEM], federation.sessions[INSURER]
    oem.share(query)
    insurer.share(query, {OEM: np.ones(ROWS)})
    for session, absent in ((oem, INSURER), (insurer, TRUSTEE)):
        with pytest.raises(MessageMissing) as refused:
            session.check_ready(query)
        assert refused.value.party == absent


def test_a_matrix_that_is_not_complete_is_refused() -> None:
    """One chunk of three is missing."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)], chunk_rows=50)
    federation.align({(OEM, INSURER): IDS, (INSURER, OEM): IDS})
    oem, insurer = federation.sessions[OEM], federation.sessions[INSURER]
    oem.hold(INSURER, np.zeros((ROWS, COLUMNS)))
    insurer.hold(OEM, None)
    assert oem.chunks == 3
    federation.deliver({OEM: {**oem.matrix(0), **oem.matrix(1)}, INSURER: insurer.matrix(0)})
    query = planned("DOT")
    federation.deliver({TRUSTEE: federation.dealer.deal(query)})
    insurer.share(query, {OEM: np.ones(ROWS)})
    with pytest.raises(MessageMissing, match="not complete"):
        insurer.check_ready(query)


def test_blobs_of_another_attempt_tag_sender_or_relay_are_refused() -> None:
    """Replays, swaps and strangers: SealBroken, TagReused or MessageUnexpected."""
    keys = new_keys([OEM, INSURER, TRUSTEE])
    first, second = (ready(attempt=n, keys=keys) for n in (1, 2))
    query = planned("DOT")
    blobs = relay({INSURER: Payload(blobs=first.sessions[INSURER].share(query, {OEM: np.ones(ROWS)}))})
    ((name, blob),) = blobs[OEM].items()
    with pytest.raises(SealBroken):
        second.sessions[OEM].receive({name: blob})
    with pytest.raises(SealBroken):
        first.sessions[OEM].receive({name.replace("share", "open"): blob})
    first.sessions[OEM].receive({name: blob})
    with pytest.raises(TagReused):
        first.sessions[OEM].receive({name: blob})
    for stranger in (
        "from|stranger|share.q",
        "to|oem|share.q",
        "from|insurer-a|deal.q",
        "from|trustee|open.q",
    ):
        with pytest.raises(MessageUnexpected):
            first.sessions[OEM].receive({stranger: blob})


def test_a_relay_that_alters_a_byte_is_noticed() -> None:
    """Whatever the blob."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)])
    blobs = federation.sessions[OEM].links(INSURER, IDS)
    altered = {name: blob[:-1] + bytes([blob[-1] ^ 1]) for name, blob in blobs.items()}
    with pytest.raises(SealBroken) as refused:
        federation.deliver({OEM: altered})
    assert refused.value.party == OEM


def test_nothing_can_be_opened_without_every_participant() -> None:
    """A part that is missing, strange or of another size; and parts alone are uniform."""
    names = ("insurer-a", "insurer-b", "insurer-c")
    federation = MemoryFederation({n: NoNoise() for n in names})
    query = planned("LOCAL", matrix=Side("insurer", names), columns=(0, 3), shape=(3, 1))
    parts = federation.ask(query, local={n: np.ones(3) for n in names})
    assert open_sum(query, parts).tolist() == [3.0, 3.0, 3.0]
    with pytest.raises(MessageMissing):
        open_sum(query, {n: parts[n] for n in names[:2]})
    with pytest.raises(MessageUnexpected):
        open_sum(query, {**parts, OEM: parts[names[0]]})
    with pytest.raises(ShapeMismatch):
        open_sum(query, {**parts, names[0]: parts[names[0]][:2]})
    assert all(int(word) > 2**40 for part in parts.values() for word in part)


def uniform(raw: bytes) -> bool:
    """Chi-square over byte values; p > 1e-6."""
    counts = np.bincount(np.frombuffer(raw, dtype=np.uint8), minlength=256)
    expected = len(raw) / 256
    return float(((counts - expected) ** 2 / expected).sum()) < chi2.isf(1e-6, 255)


def test_what_a_peer_sees_is_uniform_even_for_constant_data() -> None:
    """Masked matrix, opened factors and masked vectors; the plain ones fail the same test."""
    keys = new_keys([OEM, INSURER, TRUSTEE])
    ids = [n.to_bytes(16, "big") for n in range(4000)]
    ends = [Pair(Attempt("r", 1), keys[a], b, TRUSTEE) for a, b in ((OEM, INSURER), (INSURER, OEM))]
    p, q = ends
    lists = [end.links(ids) for end in ends]
    p.align(lists[1])
    q.align(lists[0])
    p.hold(np.ones((4000, COLUMNS)))
    query = planned("WEIGHTED")
    constant = p.encode_vector(query, np.ones(4000), 1.0)
    assert uniform(p.masked_chunk(0)[24:])
    assert uniform(p.open(query, constant))
    assert uniform(q.open(query, constant))
    assert uniform(q.share_vector(query, constant))
    assert not uniform(constant.tobytes())


def test_a_new_session_of_the_same_attempt_never_expands_the_same_pad() -> None:
    """A node that restarts has a fresh salt, so two masked matrices do not differ by plain data."""
    keys = new_keys([OEM, INSURER, TRUSTEE])
    chunks = []
    for _ in range(2):
        pair = Pair(Attempt("r", 1), keys[OEM], INSURER, TRUSTEE)
        pair.links(IDS)
        pair.align(b"".join(IDS))
        pair.hold(np.zeros((ROWS, COLUMNS)))
        chunks.append(np.frombuffer(pair.masked_chunk(0)[24:], dtype=np.uint64))
    assert not np.isin(chunks[0], chunks[1]).any()


def test_the_trustee_receives_shapes_and_nothing_else() -> None:
    """32 bytes per pair and end: rows in buckets of 50, columns, salt; it takes no other blob."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)])
    federation.align({(OEM, INSURER): IDS, (INSURER, OEM): IDS})
    session = federation.sessions[OEM]
    session.hold(INSURER, np.zeros((ROWS, COLUMNS)))
    for_trustee = relay({OEM: Payload(blobs=session.matrix(0))})[TRUSTEE]
    nonce_and_tag = 12 + 16
    assert {name: len(blob) - nonce_and_tag for name, blob in for_trustee.items()} == {
        f"from|{OEM}|shape.{INSURER}": 32
    }
    with pytest.raises(MessageUnexpected):
        federation.dealer.receive({f"from|{OEM}|matrix.0": b""})


def test_the_worked_example_of_the_documentation_runs() -> None:
    """The docstring of convoy_models.sums is the contract with those who wire it."""
    result = doctest.testmod(sums)
    assert result.attempted > 20
    assert result.failed == 0


def test_the_trustee_refuses_shapes_that_do_not_fit() -> None:
    """A missing end, or columns beyond the matrix."""
    federation = ready()
    with pytest.raises(ShapeMismatch):
        federation.dealer.deal(planned("DOT", columns=(3, 5)))
    with pytest.raises(MessageMissing):
        DealerSession("r", 1, federation.keys[TRUSTEE]).deal(planned("DOT"))
    with pytest.raises(MessageUnexpected):
        federation.dealer.deal(planned("LOCAL"))


@pytest.mark.parametrize(
    ("vector", "error"),
    [
        (np.ones(ROWS - 1), ShapeMismatch),
        (np.full(ROWS, np.nan), ValueRefused),
        (np.full(ROWS, 1.01), ValueRefused),
        (np.ones((ROWS, 2)), ShapeMismatch),
    ],
)
def test_a_vector_beyond_its_cap_or_shape_is_refused(vector: np.ndarray, error: type[ModelsError]) -> None:
    """Before anything is sent."""
    with pytest.raises(error):
        ready().sessions[INSURER].share(planned("DOT"), {OEM: vector}, cap=1.0)


@pytest.mark.parametrize("entry", [np.nan, 1.001, -1.001, np.inf])
def test_a_matrix_entry_outside_its_range_is_refused(entry: float) -> None:
    """[-1, 1], finite."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)])
    federation.align({(OEM, INSURER): IDS, (INSURER, OEM): IDS})
    matrix = np.zeros((ROWS, COLUMNS))
    matrix[-1, -1] = entry
    with pytest.raises(ValueRefused):
        federation.sessions[OEM].hold(INSURER, matrix)


def test_a_sum_that_could_wrap_is_refused_at_the_node() -> None:
    """Head-room counts rows, clip and noise; for LOCAL the numbers themselves."""
    federation = ready()
    with pytest.raises(RingOverflow):
        federation.ask(planned("WEIGHTED", clip=2.0**20), values=factors())
    local = planned("LOCAL", matrix=Side("insurer", (INSURER,)))
    with pytest.raises(RingOverflow):
        federation.sessions[INSURER].close(local, np.array([2.0**43, 0.0]))


@pytest.mark.parametrize(
    ("ids", "fault"),
    [([*IDS, IDS[0]], "twice"), ([b"short"], "16 bytes")],
)
def test_link_ids_that_repeat_or_have_a_wrong_size_are_refused(ids: list[bytes], fault: str) -> None:
    """At the party that holds them, which the error names."""
    session = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)]).sessions[OEM]
    with pytest.raises(LinksRefused, match=fault) as refused:
        session.links(INSURER, ids)
    assert refused.value.party == OEM


def test_a_pair_with_nobody_in_common_is_refused() -> None:
    """An empty intersection is a fault of consent data, not an empty sum."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)])
    with pytest.raises(LinksRefused, match="in common"):
        federation.align({(OEM, INSURER): IDS[:60], (INSURER, OEM): IDS[60:]})


def test_the_length_of_a_link_list_shows_a_bucket_of_fifty() -> None:
    """Padding ids are random; they match nobody."""
    federation = MemoryFederation({OEM: NoNoise(), INSURER: NoNoise()}, [(OEM, INSURER)])
    sizes = {len(*federation.sessions[OEM].links(INSURER, IDS[:n]).values()) for n in (51, 75, 100)}
    assert len(sizes) == 1


def test_a_session_without_trustee_or_with_strangers_is_refused() -> None:
    """Sums over two parties need a dealer; queries need their own participants."""
    keys: dict[str, PairKeys] = new_keys([OEM, INSURER, TRUSTEE])
    with pytest.raises(MessageMissing):
        PartySession("r", 1, keys[OEM], peers=[INSURER], noise=NoNoise())
    alone = PartySession("r", 1, keys[OEM], noise=NoNoise())
    with pytest.raises(MessageUnexpected):
        alone.close(planned("LOCAL", matrix=Side("insurer", (INSURER,))), np.zeros(2))
    with pytest.raises(MessageUnexpected):
        alone.links(INSURER, IDS)


def test_a_peers_bytes_of_another_length_are_refused() -> None:
    """A peer that lies about lengths raises nothing but MessageMalformed or ShapeMismatch."""
    federation = ready()
    keys, tag = federation.keys, "share.joint/DOT"
    aad = Attempt("run-1", 1).aad(tag, INSURER, OEM)
    oem, query = federation.sessions[OEM], planned("DOT")
    oem.share(query)
    oem.receive({f"from|{INSURER}|{tag}": keys[INSURER].seal(OEM, aad, b"123")})
    with pytest.raises(MessageMalformed):
        oem.close(query)


def test_a_clipped_sum_bounds_every_person() -> None:
    """Rows below the clip stay; longer ones are shortened to it."""
    rows = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    np.testing.assert_allclose(clipped_sum(rows, 1.0), [0.9, 1.2])
    with pytest.raises(ValueRefused):
        clipped_sum(np.array([[np.nan]]), 1.0)
    with pytest.raises(ValueRefused):
        clipped_sum(rows, 0.0)
