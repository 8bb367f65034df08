"""A release loads whole and unaltered, by its recipient under its contract, or not at all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_contracts.canonical import canonical_bytes
from convoy_models.bundle import (
    MANIFEST,
    SIGNATURE,
    Bundle,
    Golden,
    ReleaseFacts,
    Verified,
    digest,
    pack,
    read_bundle,
    write_bundle,
)
from convoy_models.card import (
    CardFacts,
    Measure,
    Text,
    privacy_claim,
    render,
    show_delta,
    show_epsilon,
)
from convoy_models.errors import BundleAltered, BundleMalformed, BundleNotForUse

INSURER = "did:web:insurer-a.example"
CONTRACT = "sha256:" + "ab" * 32
KEY = Ed25519PrivateKey.generate()
ARRAYS = {"joint/level": np.array([-2.5]), "joint/oem/km": np.array([0.1, -0.2, 0.3])}
GOLDEN = Golden("joint", {"km": [1.0, 2.0], "garage": ["yes", "no"]}, [0.08, 0.11])


def card_facts(**changes: object) -> CardFacts:
    """Facts of a card."""
    facts = CardFacts(
        title=Text("驾驶风险模型", "Driver-risk model"), run="run-1", contract_digest=CONTRACT,
        algorithm="risk", purpose=Text("定价", "pricing"), parties=[(INSURER, "insurer")],
        trustee="did:web:auditor.example", recipients=[INSURER], epsilon_micro=4_000_000,
        delta_nano=1_000, spent=[(INSURER, 4_000_001, 6_000_000)], queries=55,
        rows=[("joint", 41_000)], features=[("oem", ["km"])],
        measures=[Measure(Text("基尼", "Gini"), "0.278", Text("留出集", "hold-out"))],
    )  # fmt: skip
    return dataclasses.replace(facts, **changes)


def packed(**changes: object) -> dict[str, bytes]:
    """The files of a release."""
    facts = ReleaseFacts("run-1", "risk", CONTRACT, (INSURER,), 4_000_000, 1_000, {"index": 7})
    facts = dataclasses.replace(facts, **changes)
    return pack(facts, arrays=ARRAYS, specification={"kind": "x"}, golden=[GOLDEN], card=card_facts())


def read(folder: Path, **changes: object) -> Verified[Bundle]:
    """Read as the insurer under the contract."""
    options = {"recipient": INSURER, "contract_digest": CONTRACT, "recalled": ()} | changes
    key = options.pop("key", KEY.public_key())
    return read_bundle(folder, key, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A written release."""
    write_bundle(tmp_path / "release", packed(), KEY)
    return tmp_path / "release"


def test_a_release_comes_back_as_it_was_packed(folder: Path) -> None:
    """Arrays to the last bit, golden vectors, specification, facts and card."""
    bundle = read(folder).value
    assert {n: a.tolist() for n, a in bundle.arrays.items()} == {n: a.tolist() for n, a in ARRAYS.items()}
    assert bundle.golden == (GOLDEN,)
    assert bundle.specification == {"kind": "x"}
    assert bundle.facts.epsilon_micro == 4_000_000
    assert bundle.manifest_digest == digest((folder / MANIFEST).read_bytes())
    assert "Driver-risk model" in bundle.card


def test_packing_is_deterministic() -> None:
    """Two packers produce the same manifest, so its digest can be compared."""
    assert packed() == packed()


def test_any_flipped_bit_in_any_file_is_refused(folder: Path) -> None:
    """Every file, at its first, middle and last byte."""
    for path in sorted(folder.iterdir()):
        original = path.read_bytes()
        for at in {0, len(original) // 2, len(original) - 1}:
            changed = bytearray(original)
            changed[at] ^= 1
            path.write_bytes(bytes(changed))
            with pytest.raises(BundleAltered):
                read(folder)
        path.write_bytes(original)
    read(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "card.md", "golden.json", MANIFEST, SIGNATURE])
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    """Whichever."""
    (folder / name).unlink()
    with pytest.raises(BundleAltered):
        read(folder)


@pytest.mark.parametrize(
    "add",
    [
        lambda f: (f / "extra.txt").write_text("x"),
        lambda f: (f / "sub").mkdir(),
        lambda f: (f / "link").symlink_to(f / "card.md"),
    ],
)
def test_anything_added_is_refused(folder: Path, add: Callable[[Path], object]) -> None:
    """A file, a folder, a link."""
    add(folder)
    with pytest.raises(BundleAltered):
        read(folder)


def test_a_manifest_signed_by_another_key_is_refused(folder: Path) -> None:
    """Also when every digest fits."""
    with pytest.raises(BundleAltered):
        read(folder, key=Ed25519PrivateKey.generate().public_key())
    (folder / SIGNATURE).write_bytes(b"short")
    with pytest.raises(BundleAltered):
        read(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"recipient": "did:web:stranger.example"},
        {"contract_digest": "sha256:" + "cd" * 32},
        {"recalled": {"run-1"}},
    ],
)
def test_a_genuine_release_is_refused_where_it_may_not_be_used(folder: Path, change: dict) -> None:
    """Another recipient, another contract, a recall by run or by manifest."""
    with pytest.raises(BundleNotForUse):
        read(folder, **change)
    with pytest.raises(BundleNotForUse):
        read(folder, recalled=[read(folder).value.manifest_digest])


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        json.dumps(json.loads(packed()[MANIFEST])).encode(),
        b'{"kind":"convoy-release/2"}',
        canonical_bytes(json.loads(packed()[MANIFEST]) | {"epsilonMicro": True}),
        canonical_bytes(json.loads(packed()[MANIFEST]) | {"recipients": [1]}),
        canonical_bytes(json.loads(packed()[MANIFEST]) | {"files": {"../x": "sha256:0"}}),
    ],
)
def test_a_signed_manifest_of_another_form_is_refused(folder: Path, manifest: bytes) -> None:
    """Even the coordinator's key cannot make this loader accept what it does not know."""
    (folder / MANIFEST).write_bytes(manifest)
    (folder / SIGNATURE).write_bytes(KEY.sign(manifest))
    with pytest.raises(BundleMalformed):
        read(folder)


def test_a_release_never_changes(folder: Path) -> None:
    """Writing over one is refused; so is a folder that is none, and evidence that is inexact."""
    with pytest.raises(BundleMalformed):
        write_bundle(folder, packed(), KEY)
    with pytest.raises(BundleMalformed):
        write_bundle(folder.with_name("other"), {"card.md": b""}, KEY)
    with pytest.raises(BundleMalformed):
        read(folder.with_name("absent"))
    with pytest.raises(BundleMalformed):
        packed(evidence={"size": 1.5})


def test_only_verification_makes_a_verified_value() -> None:
    """There is no other constructor."""
    with pytest.raises(BundleMalformed):
        Verified(object(), object())


def test_golden_vectors_catch_a_loader_that_computes_something_else(folder: Path) -> None:
    """A relative error of 1e-6 is enough."""
    bundle = read(folder).value
    bundle.check_golden(lambda golden: golden.outputs)
    for wrong in (lambda g: np.array(g.outputs) * (1 + 1e-6), lambda g: g.outputs[:1]):
        with pytest.raises(BundleAltered):
            bundle.check_golden(wrong)


def test_a_card_quotes_epsilon_with_unit_delta_scope_and_assumptions() -> None:
    """In both languages, rounded up; and it never says anonymous."""
    card = render(card_facts())
    for language in ("zh", "en"):
        assert privacy_claim(card_facts(), language) in card
    wanted = [
        "(4.00, 1e-6)-differentially private",
        "unit: person",
        "scope: this run",
        CONTRACT,
        "does not collude",
        "add their noise",
        "单位：个人",
        "向上取整",
        "4.01",
        "6.00",
    ]
    for words in wanted:
        assert words in card
    assert "anonym" not in card.lower()
    assert "匿名" not in card


def test_epsilon_is_rounded_up_and_delta_is_exact() -> None:
    """4.000001 is not 4.00."""
    assert [show_epsilon(m) for m in (4_000_000, 4_000_001, 10_000, 1)] == [
        "4.00",
        "4.01",
        "0.01",
        "0.01",
    ]
    assert [show_delta(n) for n in (1_000, 1, 2_500)] == ["1e-6", "1e-9", "2.5e-6"]


def test_a_card_without_a_claim_is_refused() -> None:
    """No epsilon, no delta, or a noise rule nobody has worded."""
    for change in ({"epsilon_micro": 0}, {"delta_nano": 0}, {"noise_rule": "trust-me/1"}):
        with pytest.raises(BundleMalformed):
            render(card_facts(**change))
