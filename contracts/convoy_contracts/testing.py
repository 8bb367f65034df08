"""Whole, signed worlds with keys that anybody can derive: for tests, benches and examples, never for a partner.

``signed_world`` signs a document by all its parties and puts the pieces of a decision together; ``example_world`` is one
that every gate allows. The keys are a public function of the party's id, so a node must never trust them.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_contracts.build import Asset, Member, risk_contract, scheduled
from convoy_contracts.canonical import b64u, digest
from convoy_contracts.decide.decision import scope
from convoy_contracts.signatures import ACT, HEADER_TYPE, ROLE, payload
from convoy_contracts.specification import Knots, RiskSpecification, Tower
from convoy_contracts.vocabulary import VOCABULARY

SIGNED_AT = "2026-11-20T10:00:00+08:00"
NOW = "2027-03-01T10:00:00+08:00"
OEM, CHARGING = "did:web:oem.example", "did:web:charging.example"
INSURERS = ("did:web:insurer-a.example", "did:web:insurer-b.example", "did:web:insurer-c.example")


@lru_cache(maxsize=256)
def key_of(party: str) -> Ed25519PrivateKey:
    """Return the party's testing key."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"convoy testing key|{party}".encode()).digest())


def key_entry(party: str) -> dict[str, Any]:
    """Return the party's entry of the world's ``keys``."""
    public = key_of(party).public_key().public_bytes_raw()
    return {
        "party": party,
        "kty": "OKP",
        "crv": "Ed25519",
        "x": b64u(public),
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2029-01-01T00:00:00Z",
    }


def signature_entry(document: Mapping[str, Any], party: str, sig_t: str = SIGNED_AT) -> dict[str, str]:
    """Sign a document as a party, without asking whether it is a contract at all."""
    kid = f"{party}#1"
    header = b64u(json.dumps({"alg": "Ed25519", "kid": kid, "typ": HEADER_TYPE}).encode())
    body = payload(
        party=party, sig_t=sig_t, uid=document["uid"], version=document["version"], digest=digest(dict(document))
    )
    signature = key_of(party).sign(f"{header}.{b64u(body)}".encode())
    return {"party": party, "role": ROLE, "act": ACT, "kid": kid, "sigT": sig_t, "jws": f"{header}..{b64u(signature)}"}


def signed_world(
    document: Mapping[str, Any], parts: Mapping[str, Any], *, unsigned: Collection[str] = (), authorised_at: str = ""
) -> dict[str, Any]:
    """Return a world: ``parts`` with the document, its keys and signatures, and a request that names its digest.

    Args:
        document: a contract document.
        parts: the other members of a world; copied, not changed.
        unsigned: parties that have not signed.
        authorised_at: when the node authorised this very request, for phase release.
    """
    world = copy.deepcopy(dict(parts))
    ids = [party["id"] for party in document["parties"]]
    world["contract_text"] = json.dumps(document, ensure_ascii=False)
    world["keys"] = {f"{party}#1": key_entry(party) for party in ids}
    world["signatures"] = [signature_entry(document, party) for party in ids if party not in unsigned]
    world["request"]["contractDigest"] = digest(dict(document))
    if authorised_at:
        entry = {"at": authorised_at, "scope": scope(world["request"])}
        world["node"]["authorised"] = {str(world["request"]["round"]): entry}
    return world


def example_document() -> dict[str, Any]:
    """Return a risk contract of a carmaker and three insurers."""
    specification = RiskSpecification(
        kind="risk-towers/1",
        towers=(
            Tower(role="insurer", features=(Knots(kind="knots", name="age", knots=("18", "40", "80")),), cap="8"),
            Tower(role="oem", features=(Knots(kind="knots", name="harsh_brake", knots=("0", "5")),), cap="4"),
        ),
        claims="claims",
        exposure="exposure",
        claimCap=3,
        priorRate="0.08",
        priorScale="1",
        smoothness="1",
        sweeps=4,
        labelShareMilli=300,
        epsilonMicro=4_000_000,
        deltaNano=1000,
    )
    pia = ("PIA-1", "2028-01-01T00:00:00+08:00")
    books = [
        Asset(f"urn:convoy:asset:book:{n}", party, [("age", "L2", False, "1"), ("claims", "L3", False, "1")])
        for n, party in enumerate(INSURERS)
    ]
    drive = Asset("urn:convoy:asset:drive", OEM, [("harsh_brake", "L2", False, "0.1")])
    return risk_contract(
        uid="urn:convoy:contract:example",
        version=1,
        nonce="n-1",
        offer_until="2026-11-30T00:00:00+08:00",
        not_before="2026-12-01T00:00:00+08:00",
        not_after="2027-12-01T00:00:00+08:00",
        title="Joint risk model",
        parties=[
            Member(OEM, "oem", "CN-SH", pia=pia),
            *(Member(party, "insurer", "CN-BJ", pia=pia) for party in INSURERS),
        ],
        assets=[drive, *books],
        specification=specification,
        assignees=INSURERS,
        recipients=[OEM, *INSURERS],
        notices=["drive@1"],
        total_micro=6_000_000,
        min_subjects=30_000,
        min_providers=4,
    )


def example_world() -> dict[str, Any]:
    """Return a world that every gate allows: the first run under ``example_document``."""
    document = example_document()
    assets = [row["asset"] for row in document["data"]]
    fields: dict[str, Sequence[str]] = {asset: scheduled(document, asset) for asset in assets}
    algorithm = document["algorithms"][0]
    parts = {
        "now": NOW,
        "vocabulary": copy.deepcopy(VOCABULARY),
        "events": [],
        "duties": [],
        "node": {
            "clockOk": True,
            "lastRound": 0,
            "seenNonces": [],
            "authorised": {},
            "catalog": {
                row["asset"]: {
                    "owner": row["provider"],
                    "fields": {item["name"]: {"grade": item["grade"]} for item in row["fields"]},
                }
                for row in document["data"]
            },
            "consent": {
                "subjects": [
                    {
                        "n": 41_000,
                        "given": "2026-12-01T00:00:00+08:00",
                        "until": "2027-12-01T00:00:00+08:00",
                        "withdrawn": None,
                        "notice": "drive@1",
                        "purpose": "convoy:RiskModelTraining",
                        "recipients": [OEM, *INSURERS],
                        "separate": True,
                        "age": 40,
                    }
                ]
            },
            "budget": {},
            "assetCapMicro": dict.fromkeys(assets, 6_000_000),
        },
        "request": {
            "phase": "authorise",
            "requester": INSURERS[0],
            "action": "convoy:train",
            "purpose": "convoy:RiskModelTraining",
            "providers": [OEM, *INSURERS],
            "assets": assets,
            "fields": fields,
            "recipients": [OEM, *INSURERS],
            "nodeRegions": ["CN-SH", "CN-BJ"],
            "algorithm": {"id": algorithm["id"], "digest": algorithm["digest"]},
            "output": "convoy:GlobalModel",
            "round": 1,
            "nonce": "n1",
            "issuedAt": NOW,
            "epsilonMicro": dict.fromkeys(assets, 4_000_000),
            "deltaNano": dict.fromkeys(assets, 0),
        },
    }
    return signed_world(document, parts)
