"""Policy files and the quorum."""

from __future__ import annotations

import itertools

import pytest

from convoy_audit.errors import AuditError, PolicyError, SignatureError
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_audit.policy import Policy, make_policy, quorum_of
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS, MemoryLog, make_witness

CO = SignatureType.COSIGNATURE_ED25519
LOG = MemoryLog("example.com/log", HYBRID_LOG)
LOG.append(b"entry")
NOTE = LOG.checkpoint()
A, B, C = (Signer.generate(name, CO) for name in "ABC")
HEAD = f"log {LOG.vkeys[0]}\nlog {LOG.vkeys[1]}\nwitness A {A.vkey}\nwitness B {B.vkey}\nwitness C {C.vkey}\n"


def cosigned(*signers: Signer) -> bytes:
    text = NOTE.split(b"\n\n")[0] + b"\n"
    return NOTE + "".join(s.line(text, 1) for s in signers).encode()


def test_the_quorum_is_the_published_row() -> None:
    """Sigsum's list for n = 1 to 7."""
    assert [quorum_of(n) for n in range(1, 8)] == [1, 2, 3, 3, 4, 5, 5]


@pytest.mark.parametrize(
    ("rule", "enough"),
    [
        ("quorum none", {0, 1, 2, 3}),
        ("group g any A B C\nquorum g", {1, 2, 3}),
        ("group g 2 A B C\nquorum g", {2, 3}),
        ("group g all A B C\nquorum g", {3}),
        ("group g 1 A\ngroup h all g B C\nquorum h", {3}),
    ],
)
def test_a_quorum_counts_each_witness_once(rule: str, enough: set[int]) -> None:
    """Every subset of three witnesses under five rules, some lines twice."""
    policy = Policy.parse(f"{HEAD}{rule}\n".encode())
    for count in range(4):
        for signers in itertools.combinations((A, B, C), count):
            note = cosigned(*signers, *signers)
            assert policy.standing(note).has_quorum == (count in enough)
            if count not in enough:
                with pytest.raises(PolicyError) as raised:
                    policy.verify(note)
                assert raised.value.code == "QUORUM_MISSING"


def test_nested_groups_ask_for_both_sides() -> None:
    """The example of the specification in small."""
    rule = "group x any A B\ngroup both all x C\nquorum both\n"
    policy = Policy.parse(f"{HEAD}{rule}".encode())
    assert policy.standing(cosigned(B, C)).has_quorum
    assert not policy.standing(cosigned(A, B)).has_quorum


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none\nquorum none\n",
        "quorum A\n",
        HEAD,
        HEAD + "group g any D\nquorum g\n",
        HEAD + "group g 0 A\nquorum g\n",
        HEAD + "group g 4 A B C\nquorum g\n",
        HEAD + "group g 02 A B C\nquorum g\n",
        HEAD + "group g +2 A B C\nquorum g\n",
        HEAD + "group g 2 A A B\nquorum g\n",
        HEAD + "group g any A\ngroup h any A\nquorum g\n",
        HEAD + "group A any B\nquorum A\n",
        HEAD + "group none any B\nquorum none\n",
        HEAD + "group g any\nquorum g\n",
        HEAD + f"witness D {A.vkey}\nquorum D\n",
        HEAD + f"witness A {Signer.generate('D', CO).vkey}\nquorum A\n",
        HEAD + f"log {LOG.vkeys[0]}\nquorum A\n",
        HEAD + "quorum A # the first\n",
        HEAD + "quorum\n",
        HEAD + "quorum A\r\n",
        HEAD + "quorum A\x00\n",
        HEAD + "colour red\nquorum A\n",
        f"log {A.vkey}\nquorum none\n",
        "witness A A+00000000+BAAA\nquorum A\n",
    ],
    ids=itertools.count(),
)
def test_a_wrong_policy_is_refused_with_our_error(text: str) -> None:
    """Undefined and repeated names, thresholds out of range, wrong key types, control characters."""
    with pytest.raises(PolicyError):
        Policy.parse(text.encode())


def test_comments_tabs_empty_lines_and_octets_are_allowed() -> None:
    """Names are octets, not text."""
    text = HEAD.encode() + b"\n \t# \xff\n\tgroup\tg\xe2\x84\xaa any  A\nquorum g\xe2\x84\xaa\n"
    assert Policy.parse(text).standing(cosigned(A)).has_quorum


def test_a_hybrid_log_must_sign_with_both_types() -> None:
    """One of two pinned types is not enough; one of two pinned keys of a type is."""
    policy = make_policy(LOG.vkeys, {})
    head, signatures = NOTE.split(b"\n\n")
    lines = signatures.splitlines(keepends=True)
    assert len(lines) == 2
    for line in lines:
        with pytest.raises(SignatureError):
            policy.standing(head + b"\n\n" + line)
    rotated = make_policy([*LOG.vkeys, Signer.generate(LOG.origin, HYBRID_LOG[0]).vkey], {})
    assert rotated.standing(NOTE).has_quorum


def test_a_hybrid_witness_counts_only_with_both_types() -> None:
    """Half a cosignature is none."""
    witness = make_witness("w", LOG, kinds=HYBRID_WITNESS)
    policy = make_policy(LOG.vkeys, {"w": [v.vkey for v in witness.verifiers]})
    lines = witness.add_checkpoint(NOTE, 0, [], 1).lines.splitlines(keepends=True)
    assert policy.standing(NOTE + "".join(lines).encode()).has_quorum
    for line in lines:
        assert not policy.standing(NOTE + line.encode()).has_quorum


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """Same shape, other keys."""
    other = MemoryLog("example.com/log", HYBRID_LOG)
    other.append(b"entry")
    with pytest.raises(AuditError):
        make_policy(LOG.vkeys, {}).standing(other.checkpoint())
