"""Set up the federation once: folders, keys, data, enrolment, contracts, signatures, consents.

Everything goes through the interfaces that real partners have: a node's folder is made by ``convoy_node.setup``, parties and
contracts are posted to the coordinator, each party signs with its own key in its own folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime

from convoy_contracts.canonical import canonical_bytes
from convoy_coordinator.settings import read_settings
from convoy_coordinator.setup import create_home as create_coordinator
from convoy_coordinator.setup import public_facts
from convoy_demo import agreements, party_data
from convoy_demo.api import Api
from convoy_demo.places import MEMBERS, Places
from convoy_demo.population import generate, histories
from convoy_demo.scenario import Scenario
from convoy_node.identity import Card
from convoy_node.register import Register
from convoy_node.setup import create_home, pin, sign_contract

ORIGIN = "convoy.example/demo"
DATA_FILE = "data/data.parquet"
CONSENT_FILE = "data/consents.parquet"


def found_coordinator(places: Places, port: int, **settings: object) -> None:
    """Make the coordinator's folder; ``settings`` as ``convoy_coordinator.setup.create_home`` takes them."""
    places.root.mkdir(parents=True, exist_ok=True)
    create_coordinator(places.coordinator, name="Convoy demo", origin=ORIGIN, port=port, **settings)


def found_nodes(places: Places, scenario: Scenario, log_keys: list[str]) -> dict[str, Card]:
    """Make every party's folder with its keys and data; return what each publishes."""
    now = datetime.now(UTC)
    handover = places.root / "handover"
    population = generate(scenario.drivers, scenario.seed)
    files = party_data.write_party_data(
        handover,
        population,
        histories(population, scenario.seed),
        risk=agreements.terms_of(agreements.RISK, now),
        recommendation=agreements.terms_of(agreements.RECOMMENDATION, now),
        seed=scenario.seed,
    )
    cards = {}
    for member in MEMBERS:
        home = places.node(member.short)
        fields = agreements.fields_of(member, scenario) if member.asset else ()
        cards[member.short] = create_home(
            home,
            party=member.id,
            role=member.role,
            region=member.region,
            name=member.name,
            log_keys=log_keys,
            data_source=DATA_FILE if member.asset else "",
            asset=member.asset,
            asset_fields=dict.fromkeys(fields, "L3"),
            asset_year_cap_micro=(scenario.year_cap_micro or member.cap_micro) if member.asset else 0,
            contract_names=agreements.UIDS,
        )
        if member.short in files:
            (home / "data").mkdir(mode=0o700)
            files[member.short].data.rename(home / DATA_FILE)
            files[member.short].consents.rename(home / CONSENT_FILE)
    shutil.rmtree(handover)
    for member in MEMBERS:
        pin(places.node(member.short), cards.values())
    return cards


def import_consents(places: Places, tell: Callable[[str], None]) -> None:
    """Import each party's consents into its own register."""
    for member in MEMBERS:
        home = places.node(member.short)
        if (home / CONSENT_FILE).exists():
            tell(f"consents of {member.short}")
            with Register(home / "register.db", party=member.id) as register:
                register.import_table(home / CONSENT_FILE, agreements.UIDS)


def agree(places: Places, api: Api, cards: dict[str, Card], scenario: Scenario) -> dict[str, str]:
    """Enrol the parties, offer both contracts, have every party sign; return digests by contract."""
    for member in MEMBERS:
        api.post("/v1/parties", cards[member.short].enrolment())
    digests = {}
    for name in (agreements.RISK, agreements.RECOMMENDATION):
        now = datetime.now(UTC)
        document = agreements.contract_document(name, cards, scenario, now)
        text = canonical_bytes(document).decode()
        digest = str(api.post("/v1/contracts", {"text": text})["digest"])
        for party in document["parties"]:
            member = next(m for m in MEMBERS if m.id == party["id"])
            entry = sign_contract(places.node(member.short), text, datetime.now(UTC))
            api.post(f"/v1/contracts/{digest}/signatures", {"entry": entry})
        digests[name] = digest
    return digests


def write_ready(places: Places, digests: dict[str, str], scenario: Scenario) -> None:
    """Mark the set-up as whole; without this file it is made again from nothing."""
    facts = {"contracts": digests, "drivers": scenario.drivers, "seed": scenario.seed}
    places.ready.write_text(json.dumps(facts), encoding="utf-8")


def found(places: Places, scenario: Scenario, api: Api, tell: Callable[[str], None]) -> None:
    """Found the nodes of a federation whose coordinator answers; ``tell`` hears what is being done."""
    tell(f"{scenario.drivers:,} drivers")
    log_keys = public_facts(read_settings(places.coordinator))["logKeys"]
    cards = found_nodes(places, scenario, list(log_keys))
    import_consents(places, tell)
    tell("two contracts, signed by every party")
    write_ready(places, agree(places, api, cards, scenario), scenario)
