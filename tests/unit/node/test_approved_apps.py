"""Which app bundles a node takes: its signed contracts say so, a server never does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.canonical import canonical_bytes
from convoy_coordinator.federation.flower.app_bundle import app_bundle
from convoy_demo import agreements
from convoy_demo.places import MEMBERS
from convoy_demo.scenario import Scenario
from convoy_node.channel_home import Connection
from convoy_node.flower.approved import ALGORITHM, RELEASE, approved_apps
from convoy_node.settings import Settings
from convoy_node.setup import create_home, pin, sign_contract
from convoy_node.up import Node, utc_now

OTHER = "ab" * 32


@pytest.fixture
def node(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an OEM's node and the document of a contract that it can keep."""
    scenario, cards = Scenario(), {}
    from convoy_audit.keys import SignatureType
    from convoy_audit.note import Signer

    key = Signer.from_seed("test.example/log", SignatureType.ED25519, bytes(range(32))).vkey
    for member in MEMBERS:
        fields = agreements.fields_of(member, scenario) if member.asset else ()
        cards[member.short] = create_home(
            tmp_path / member.short, party=member.id, role=member.role, region=member.region, log_keys=[key],
            data_source="data.parquet" if member.asset else "", asset=member.asset,
            asset_fields=dict.fromkeys(fields, "L3"), asset_year_cap_micro=member.cap_micro,
        )  # fmt: skip
    pin(tmp_path / "oem", cards.values())
    return tmp_path / "oem", agreements.contract_document(agreements.RECOMMENDATION, cards, scenario, utc_now())


def naming(document: dict[str, Any], app_hash: str) -> str:
    """Return a contract's text that names an app bundle."""
    terms = json.loads(canonical_bytes(document))
    terms["algorithms"].append({"id": ALGORITHM, "digest": f"sha256:{app_hash}", "args": {}})
    return canonical_bytes(terms).decode()


def test_without_a_contract_that_names_one_it_is_the_bundle_of_the_installed_release(
    node: tuple[Path, dict[str, Any]],
) -> None:
    """Both ends compute the same bytes; no server is asked."""
    assert app_bundle().sha256 == RELEASE
    assert approved_apps([]) == {RELEASE}
    assert approved_apps([canonical_bytes(node[1]).decode()]) == {RELEASE}


def test_a_signed_contract_names_the_bundle_and_nothing_else_counts(node: tuple[Path, dict[str, Any]]) -> None:
    """Also the release's own bundle is out then."""
    home, document = node
    text = naming(document, OTHER)
    sign_contract(home, text, utc_now())
    assert approved_apps([text]) == {OTHER}


def test_a_bundle_that_only_the_coordinator_approves_starts_no_supernode(node: tuple[Path, dict[str, Any]]) -> None:
    """The node says which bundle, and what to do; it stays on the channel."""
    home, _ = node
    Connection(enrolment="localhost:1", channel="localhost:2", link="localhost:3", app_hashes=(OTHER,)).save(home)
    told: list[str] = []
    running = Node(home, tell=told.append)
    for _ in range(2):
        running._keep_child(Settings.load(home))
    assert running._child is None
    assert len(told) == 1
    assert told[0].startswith("APP_NOT_APPROVED")
    assert OTHER in told[0]
