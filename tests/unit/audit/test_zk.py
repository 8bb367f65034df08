"""Zero-knowledge proofs: they hold for what is true and for one claim only; every equation is needed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from convoy_audit import zk, zk_group
from convoy_audit.errors import FormatError, ZkError

CONTRACT = "sha256:" + "ab" * 32
OTHER = "sha256:" + "cd" * 32
COHORT = zk.Claim("cohort-at-least", 1000, CONTRACT, "run-1", "did:web:a.example", (1,), 16)
SPEND = zk.Claim("spend-at-most", 3000, CONTRACT, "run-1", "did:web:a.example", (1, 2, 3), 12)


@pytest.fixture(scope="module")
def cohort() -> zk.ZkProof:
    """A cohort of 1,234 is at least 1,000."""
    return zk.prove(COHORT, [zk.commit(1234)[1]])


@pytest.fixture(scope="module")
def spend() -> zk.ZkProof:
    """0 + 1,000 + 2,000 is at most 3,000."""
    return zk.prove(SPEND, [zk.commit(value)[1] for value in (0, 1000, 2000)])


def words(proof: bytes) -> list[bytes]:
    return [proof[at : at + 32] for at in range(0, len(proof), 32)]


def changed(proof: zk.ZkProof, number: int, content: bytes) -> zk.ZkProof:
    return replace(proof, proofs=(*proof.proofs[:number], content, *proof.proofs[number + 1 :]))


def refused(proof: zk.ZkProof) -> None:
    with pytest.raises(ZkError):
        zk.verify(proof)


def test_true_claims_hold_and_come_back_from_their_file(cohort: zk.ZkProof, spend: zk.ZkProof) -> None:
    """Exactly at the bound as well; the file names its label."""
    for proof in (cohort, spend):
        zk.verify(proof)
        again = zk.ZkProof.from_bytes(proof.to_bytes())
        assert again == proof
        zk.verify(again)
    zk.verify(zk.prove(COHORT, [zk.commit(1000)[1]]))
    zk.verify(zk.prove(replace(SPEND, bound=0), [zk.commit(0)[1] for _ in range(3)]))
    assert "not that the party counted honestly" in json.loads(cohort.to_bytes())["label"]


def test_a_false_claim_cannot_be_proven() -> None:
    """Cohort too small, spend too large, numbers too wide for the claim."""
    for claim, values in (
        (COHORT, [999]),
        (COHORT, [1000 + (1 << 16)]),
        (SPEND, [0, 1000, 2001]),
        (SPEND, [1 << 12, 0, 0]),
        (SPEND, [1, 2]),
    ):
        with pytest.raises(ZkError):
            zk.prove(claim, [zk.commit(value)[1] for value in values])


def test_a_proof_belongs_to_one_contract_run_party_round_and_bound(cohort: zk.ZkProof, spend: zk.ZkProof) -> None:
    """Fiat-Shamir binds every parameter; a proof cannot be moved."""
    for proof in (cohort, spend):
        claim = proof.claim
        for other in (
            replace(claim, contract=OTHER),
            replace(claim, run="run-2"),
            replace(claim, party="did:web:b.example"),
            replace(claim, rounds=tuple(number + 1 for number in claim.rounds)),
            replace(claim, bound=claim.bound - 1),
            replace(claim, bits=claim.bits + 1),
        ):
            refused(replace(proof, claim=other))
    refused(replace(spend, claim=replace(SPEND, rounds=(2, 1, 3))))
    refused(replace(cohort, claim=replace(COHORT, kind="spend-at-most")))


def test_every_word_of_a_range_proof_counts(cohort: zk.ZkProof) -> None:
    """The challenge, and for each bit its commitment, the branch challenge and both responses (equations 2 and 3)."""
    found = words(cohort.proofs[0])
    one = zk_group.scalar(1)
    for at, word in enumerate(found):
        is_point = at > 0 and (at - 1) % 4 == 0
        other = zk_group.add(word, zk_group.times_g(1)) if is_point else zk_group.add_scalars(word, one)
        refused(changed(cohort, 0, b"".join([*found[:at], other, *found[at + 1 :]])))


def test_the_bits_must_add_up_to_the_claimed_point(cohort: zk.ZkProof) -> None:
    """A commitment to another number under a proof that is good in itself (equation 2)."""
    refused(replace(cohort, commitments=(zk.commit(5000)[0],)))
    found = words(cohort.proofs[0])
    swapped = [found[0], *found[5:9], *found[1:5], *found[9:]]
    refused(changed(cohort, 0, b"".join(swapped)))


def test_a_bit_that_is_neither_0_nor_1_is_not_provable() -> None:
    """A cheat who commits to 2 in the lowest bit can answer neither branch (equation 3)."""
    claim = replace(COHORT, bound=0, bits=1)
    commitment, opening = zk.commit(2)
    head = zk._head(claim, [commitment])
    forged = zk._prove_range(zk._context(head, 0), commitment, zk.Opening(2, opening.blinding), 1)
    # The honest routine takes the lowest bit of 2, which is 0, so its bit commitment differs from the point:
    refused(zk.ZkProof(claim, (commitment,), (forged,)))
    # With the point itself as bit commitment the sum fits, and no response fits:
    found = words(forged)
    refused(zk.ZkProof(claim, (commitment,), (b"".join([found[0], commitment, *found[2:]]),)))


def test_a_negative_spend_cannot_make_room_for_another() -> None:
    """-500 and 3,400 add up to 2,900; without the proof of each part that would pass."""
    values, blindings = (-500, 3400, 0), [zk_group.random_scalar() for _ in range(3)]
    commitments = [zk_group.pedersen(v, r) for v, r in zip(values, blindings, strict=True)]
    head, points = zk._head(SPEND, commitments), SPEND.statements(commitments)
    secrets = [zk.Opening(v, r) for v, r in zip(values, blindings, strict=True)]
    secrets.append(zk.Opening(100, zk_group.negate(zk_group.sum_scalars(blindings))))
    proofs = [
        zk._prove_range(zk._context(head, number), point, secret, SPEND.bits)
        for number, (point, secret) in enumerate(zip(points, secrets, strict=True))
    ]
    with pytest.raises(ZkError, match="add up"):
        zk.verify(zk.ZkProof(SPEND, tuple(commitments), tuple(proofs)))
    refused(zk.ZkProof(SPEND, tuple(commitments), (proofs[-1],)))


def test_range_proofs_cannot_be_left_out_swapped_or_cut(spend: zk.ZkProof) -> None:
    """Each stands at its number; lengths are exact."""
    a, b, c, d = spend.proofs
    for proofs in (
        (a, b, c),
        (b, a, c, d),
        (a, a, c, d),
        (a, b, c, d, d),
        (a, b, c, d[:-32]),
        (a, b, c, d + bytes(32)),
        (),
    ):
        refused(replace(spend, proofs=proofs))
    refused(replace(spend, commitments=spend.commitments[:2]))
    refused(replace(spend, commitments=(*spend.commitments, spend.commitments[0])))


def test_points_and_scalars_have_one_spelling_and_the_identity_is_refused(cohort: zk.ZkProof) -> None:
    """Non-canonical scalars, invalid points, zero."""
    found = words(cohort.proofs[0])
    unreduced = (int.from_bytes(found[2], "little") + zk_group.ORDER).to_bytes(32, "little")
    for at, word in ((2, unreduced), (1, bytes(32)), (1, b"\xff" * 32), (1, b"\x01" + bytes(31))):
        refused(changed(cohort, 0, b"".join([*found[:at], word, *found[at + 1 :]])))
    for point in (bytes(32), b"\xff" * 32, b"", bytes(31)):
        refused(replace(cohort, commitments=(point,)))


def test_commitments_hide_and_bind() -> None:
    """The same number looks different each time; no other number opens it."""
    (first, opening), (second, _) = zk.commit(7), zk.commit(7)
    assert first != second
    zk.check_opening(first, opening)
    for wrong in (zk.Opening(8, opening.blinding), zk.Opening(7, zk_group.random_scalar())):
        with pytest.raises(ZkError):
            zk.check_opening(first, wrong)
    assert "blinding" not in repr(opening)


def test_the_second_generator_is_that_of_the_specification() -> None:
    """Derived by hashing, so nobody knows its logarithm; it never changes."""
    assert zk_group.generator_h().hex() == H_HEX
    assert zk_group.generator_h() != zk_group.times_g(1)


@pytest.mark.parametrize(
    "change",
    [{"v": 2}, {"type": "other"}, {"kind": "other"}, {"bound": -1}, {"bound": 1 << 16}, {"bits": 49}, {"bits": "16"},
     {"bits": True}, {"rounds": []}, {"rounds": [1, 1]}, {"rounds": "1"}, {"rounds": [None]}, {"contract": "x"}, {"party": ""},
     {"commitments": "x"}, {"commitments": [1]}, {"proofs": ["!"]}, {"label": "audited"}, {"more": 1}, {"kind": ["x"]}],
)  # fmt: skip
def test_a_file_of_another_shape_raises_our_error(cohort: zk.ZkProof, change: dict[str, object]) -> None:
    """Whatever stands in its members."""
    from convoy_audit.canonical import canonical_bytes

    with pytest.raises((FormatError, ZkError)):
        zk.verify(zk.ZkProof.from_bytes(canonical_bytes(json.loads(cohort.to_bytes()) | change)))


H_HEX = "58203e5e62ea423be97db356f0ff877cf38cb770fba857f91e53ab18f8c03e43"
