"""A node's folder: made once, pinned by people, takes part only in what it signed."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_contracts.build import Asset, Member, risk_contract
from convoy_contracts.canonical import canonical_bytes, unb64u
from convoy_contracts.document import Contract
from convoy_contracts.instants import instant
from convoy_contracts.signatures import Key, faults
from convoy_demo.specifications import risk_specification
from convoy_node.errors import HomeRefused, KeyRefused, SettingsRefused
from convoy_node.home import NodeHome
from convoy_node.identity import Card
from convoy_node.settings import Settings
from convoy_node.setup import contracts, create_home, fingerprint, pin, read_card, sign_contract

LOG = Signer.generate("log.example/convoy", SignatureType.ED25519).vkey
NOW = datetime(2027, 3, 1, tzinfo=UTC)
OEM, INSURER = "did:web:oem.example", "did:web:insurer-a.example"
ASSET = "urn:convoy:asset:oem:1"


def make(folder: Path, party: str = OEM, **changes: object) -> Card:
    """Make a node that grades the field km_1000."""
    members = {
        "party": party, "role": "oem" if party == OEM else "insurer", "region": "CN-SH", "log_keys": [LOG],
        "data_source": "data/data.parquet", "asset": ASSET, "asset_fields": {"km_1000": "L3"},
        "asset_year_cap_micro": 9_000_000, "now": NOW,
    } | changes  # fmt: skip
    return create_home(folder, **members)  # type: ignore[arg-type]


def text(cards: list[Card], **changes: object) -> str:
    """Return a contract between these parties."""
    members = {
        "uid": "urn:convoy:contract:risk", "version": 1, "nonce": "n", "title": "风险 risk",
        "offer_until": "2027-04-01T00:00:00Z", "not_before": "2027-01-01T00:00:00Z", "not_after": "2028-01-01T00:00:00Z",
        "parties": [Member(c.id, c.role, c.region, c.mask_key, c.witness_key) for c in cards],
        "assets": [Asset(ASSET, OEM, [("km_1000", "L3", False, "0.1")])],
        "specification": risk_specification(), "assignees": [OEM], "recipients": [OEM], "notices": ["n@1"],
        "total_micro": 6_000_000, "min_subjects": 1, "min_providers": 1,
    } | changes  # fmt: skip
    return canonical_bytes(risk_contract(**members)).decode()


def test_a_new_folder_opens_and_is_private(tmp_path: Path) -> None:
    """Settings, keys and files are there; the folder is the owner's."""
    card = make(tmp_path / "oem")
    assert stat.S_IMODE((tmp_path / "oem").stat().st_mode) == 0o700
    home = NodeHome.open(tmp_path / "oem", clock=lambda: NOW)
    assert home.witness.size(home.origin) == 0
    assert home.contracts() == []
    home.close()
    assert read_card(tmp_path / "oem") == card
    assert list(Settings.load(tmp_path / "oem").world_keys()) == [f"{OEM}#1"]


def test_a_folder_is_never_made_twice(tmp_path: Path) -> None:
    """Keys and ledger of a node must not be replaced."""
    make(tmp_path / "oem")
    before = {path: path.read_bytes() for path in (tmp_path / "oem" / "keys").iterdir()}
    with pytest.raises(HomeRefused, match="not empty"):
        make(tmp_path / "oem")
    assert all(path.read_bytes() == content for path, content in before.items())


def test_settings_that_do_not_hold_make_no_node(tmp_path: Path) -> None:
    """No key is born for them, and no file is left in the way of the corrected command."""
    with pytest.raises(SettingsRefused):
        make(tmp_path / "oem", role="dealer", log_keys=["x"])
    assert not (tmp_path / "oem").exists()


def test_any_text_survives_the_settings_file(tmp_path: Path) -> None:
    """Quotes, backslashes, Chinese and control characters are escaped, never interpreted."""
    name = 'A "quoted" \\ name\n[log]\nkeys = [] # 龙河 \x7f\x00'
    make(tmp_path / "oem", name=name)
    assert Settings.load(tmp_path / "oem").name == name


def test_a_fingerprint_changes_with_any_key(tmp_path: Path) -> None:
    """Two people compare it by telephone."""
    card = make(tmp_path / "oem")
    other = make(tmp_path / "insurer", INSURER)
    prints = {fingerprint(card)}
    for member in ("id", "role", "identity_key", "mask_key", "witness_key", "supernode_key"):
        prints.add(fingerprint(replace(card, **{member: getattr(other, member)})))
    assert len(prints) == 7


def test_a_pinned_key_is_not_replaced_by_a_card(tmp_path: Path) -> None:
    """Pinning again changes nothing; another key under the same kid is refused."""
    make(tmp_path / "oem")
    first = make(tmp_path / "a", INSURER)
    second = make(tmp_path / "b", INSURER)
    pin(tmp_path / "oem", [first])
    before = (tmp_path / "oem" / "pins.toml").read_text()
    pin(tmp_path / "oem", [first])
    with pytest.raises(HomeRefused, match="another key"):
        pin(tmp_path / "oem", [second])
    assert (tmp_path / "oem" / "pins.toml").read_text() == before


def test_a_signed_contract_verifies_and_counts(tmp_path: Path) -> None:
    """The signature is that of the pinned key; the text is kept with it."""
    card = make(tmp_path / "oem")
    document = text([card])
    entry = sign_contract(tmp_path / "oem", document, NOW)
    contract = Contract.parse(document)
    begin, end = instant(card.key_not_before), instant(card.key_not_after)
    assert begin is not None
    assert end is not None
    key = Key(card.identity_kid, OEM, unb64u(card.identity_key), begin, end)
    assert faults(contract, [entry], {card.identity_kid: key}) == {}
    assert contracts(tmp_path / "oem") == {contract.digest: document}


def test_a_kept_contract_with_a_changed_byte_does_not_count(tmp_path: Path) -> None:
    """Somebody edited the file: it is no longer what was signed."""
    document = text([make(tmp_path / "oem")])
    sign_contract(tmp_path / "oem", document, NOW)
    (path,) = (tmp_path / "oem" / "contracts").rglob("contract.json")
    path.write_text(document.replace('"version":1', '"version":2'))
    assert contracts(tmp_path / "oem") == {}
    path.write_bytes(b"\xff")
    assert contracts(tmp_path / "oem") == {}


def test_every_reason_not_to_sign_is_told_at_once(tmp_path: Path) -> None:
    """Whoever signs must be able to keep it."""
    make(tmp_path / "oem")
    stranger = make(tmp_path / "other", OEM)
    schedule = [Asset(ASSET, OEM, [("km_1000", "L3", False, "0.1"), ("home_grid", "L3", True, "5000")]),
                Asset("urn:convoy:asset:oem:2", OEM, [("vin", "L3", True, "1")])]  # fmt: skip
    with pytest.raises(HomeRefused) as refused:
        sign_contract(tmp_path / "oem", text([stranger], assets=schedule), NOW)
    assert refused.value.code == "CONTRACT_NOT_KEEPABLE"
    assert len(refused.value.reasons) == 4
    assert contracts(tmp_path / "oem") == {}


@pytest.mark.parametrize(
    ("document", "code"),
    [("{}", "DOCUMENT_MALFORMED"), ("[1, 1.5]", "DOCUMENT_MALFORMED"), ("", "DOCUMENT_MALFORMED")],
)
def test_what_is_no_contract_is_not_signed(tmp_path: Path, document: str, code: str) -> None:
    """Refused with the code of convoy_contracts."""
    make(tmp_path / "oem")
    with pytest.raises(HomeRefused) as refused:
        sign_contract(tmp_path / "oem", document, NOW)
    assert refused.value.code == code


def test_a_contract_of_which_one_run_costs_more_than_the_year_may_is_not_signed(tmp_path: Path) -> None:
    """The cap of node.toml is a promise to persons; the algorithm, its cost and the cap are told."""
    names = ("insurer-a", "insurer-b", "insurer-c")
    cards = [make(tmp_path / "oem", asset_year_cap_micro=0)]
    cards += [make(tmp_path / name, party=f"did:web:{name}.example") for name in names]
    cards += [make(tmp_path / "trustee", party="did:web:trustee.example", role="trustee", data_source="", asset="")]
    document = text(cards)
    with pytest.raises(HomeRefused) as refused:
        sign_contract(tmp_path / "oem", document, NOW)
    assert refused.value.code == "CONTRACT_NOT_KEEPABLE"
    (reason,) = refused.value.reasons
    assert reason.startswith("one run of risk-towers costs a person epsilon ")
    assert "allows 0 a year" in reason
    settings = tmp_path / "oem" / "node.toml"
    settings.write_text(settings.read_text().replace("year_cap_micro = 0", "year_cap_micro = 6000000"))
    assert sign_contract(tmp_path / "oem", document, NOW)["party"] == OEM


def test_a_lapsed_offer_is_not_signed(tmp_path: Path) -> None:
    """After offerUntil."""
    card = make(tmp_path / "oem")
    with pytest.raises(HomeRefused, match="lapse"):
        sign_contract(tmp_path / "oem", text([card]), datetime(2027, 5, 1, tzinfo=UTC))


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 3}'])
def test_a_damaged_card_is_refused(tmp_path: Path, content: str) -> None:
    """It is what others would pin."""
    make(tmp_path / "oem")
    (tmp_path / "oem" / "card.json").write_text(content)
    with pytest.raises((HomeRefused, KeyRefused)):
        read_card(tmp_path / "oem")


def test_a_card_holds_no_secret(tmp_path: Path) -> None:
    """It is published."""
    card = make(tmp_path / "oem")
    published = json.dumps(card.enrolment())
    assert "PRIVATE" not in published
    for path in (tmp_path / "oem" / "keys").glob("*.pem"):
        assert path.read_text().splitlines()[1] not in published
