"""For tests and rehearsals: parties with real keys, a contract that they sign, a clock that is
set by hand.

Nothing here is a stand-in: keys, signatures, cosignatures and bundles are real, only small. Never
import it from the program.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from convoy_audit.entry import encode
from convoy_audit.events import RunAuthorised
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_contracts.document import Contract
from convoy_contracts.signatures import sign
from convoy_coordinator.keys import INTERNAL_TOKEN, OPERATOR_TOKEN, read_token
from convoy_coordinator.parties.keys import write_key

Json = dict[str, Any]


class SetClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """Return the instant at which it stands."""
        return self.now

    def pass_by(self, time: timedelta) -> None:
        """Let time go by."""
        self.now += time


@dataclass(frozen=True, slots=True)
class Member:
    """A party with its private keys."""

    id: str
    name: str
    role: str
    identity: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate, repr=False)
    mask: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate, repr=False)

    @property
    def kid(self) -> str:
        """The id of the identity key."""
        return f"{self.id}#1"

    @property
    def witness(self) -> Signer:
        """The key that cosigns checkpoints."""
        seed = hashlib.sha256(self.identity.private_bytes_raw()).digest()
        name = self.id.removeprefix("did:web:")
        return Signer.from_seed(name, SignatureType.COSIGNATURE_ED25519, seed)

    def enrolment(self) -> Json:
        """Return the body of ``POST /v1/parties``."""
        public = generate_private_key(SECP384R1()).public_key()
        return {
            "id": self.id,
            "name": self.name,
            "role": self.role,
            "region": "CN-SH",
            "identityKey": write_key(self.identity.public_key().public_bytes_raw()),
            "maskKey": write_key(self.mask.public_key().public_bytes_raw()),
            "witnessKey": self.witness.vkey,
            "supernodeKey": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        }


DRIVE: Final = "urn:convoy:asset:oem:drive:1"
CLAIMS: Final = "urn:convoy:asset:insurer-a:claims:1"
NO_DIGEST: Final = f"sha256:{'0' * 64}"
PURPOSES: Final[dict[str, str | None]] = {
    "convoy:Any": None,
    "convoy:InsuranceAnalytics": "convoy:Any",
    "convoy:RiskModelTraining": "convoy:InsuranceAnalytics",
}


def contract_text(members: tuple[Member, ...], **changes: Any) -> str:
    """Return a contract document of a carmaker and an insurer (FORMAT.md §3); ``changes`` replace
    members.
    """
    purposes = json.dumps(PURPOSES, sort_keys=True, separators=(",", ":")).encode()
    budget = {"perRoundMicro": 4_000_000, "totalMicro": 6_000_000, "deltaNano": 1000}
    document: Json = {
        "schema": "convoy-contract/1",
        "uid": "urn:convoy:contract:risk",
        "version": 1,
        "title": "Joint driver risk 2027",
        "offerNonce": "n-1",
        "offerUntil": "2027-06-01T00:00:00+08:00",
        "vocab": {"purposes": f"sha256:{hashlib.sha256(purposes).hexdigest()}"},
        "parties": [
            {
                "id": member.id,
                "roles": ["convoy:Controller"],
                "region": "CN-SH",
                "pia": {"ref": f"PIA-{member.role}", "validUntil": "2028-01-01T00:00:00+08:00"},
            }
            for member in members
        ],
        "term": {"notBefore": "2027-01-01T00:00:00+08:00", "notAfter": "2028-01-01T00:00:00+08:00"},
        "permission": [
            {
                "uid": "p1",
                "action": "convoy:train",
                "target": [DRIVE, CLAIMS],
                "assignee": [member.id for member in members],
            }
        ],
        "prohibition": [],
        "data": [
            {"asset": asset, "provider": provider.id, "fields": [_field(name)]}
            for asset, provider, name in (
                (DRIVE, members[0], "harsh_brake_100km"),
                (CLAIMS, members[1], "claims"),
            )
        ],
        "algorithms": [{"id": "risk", "digest": f"sha256:{hashlib.sha256(b'risk').hexdigest()}", "args": {}}],
        "outputs": [{"kind": "convoy:GlobalModel", "recipients": [member.id for member in members]}],
        "location": {"processing": ["CN"]},
        "limits": {"maxGrade": "L3", "maxRoundSeconds": 3600},
        "consent": {"notices": ["oem-ubi@3"]},
        "cohort": {"minSubjects": 500, "minProviders": 2},
        "withdrawal": {"effective": "next-round"},
        "privacy": {DRIVE: budget, CLAIMS: budget},
    }
    return json.dumps(document | changes, ensure_ascii=False)


def _field(name: str) -> Json:
    return {"name": name, "grade": "L2", "sensitive": False, "step": "0.1"}


def bundle_files(run: Json, **contents: bytes) -> dict[str, str]:
    """Return the ``files`` of an upload: contents (``card_md=…``) and a manifest that names them."""
    files = {name.replace("_", "."): content for name, content in contents.items()}
    manifest = {
        "run": run["uid"],
        "contractDigest": run["contractDigest"],
        "recipients": [run["requester"]],
        "files": {n: f"sha256:{hashlib.sha256(c).hexdigest()}" for n, c in files.items()},
    }
    files["manifest.json"] = json.dumps(manifest, sort_keys=True).encode()
    return {name: b64encode(content).decode() for name, content in files.items()}


class Federation:
    """A carmaker, an insurer and an auditor talking to a coordinator over HTTP.

    Args:
        client: speaks to the coordinator.
        home: its home folder, for the two tokens.
        clock: the coordinator's clock.
    """

    def __init__(self, client: httpx.Client, home: Path, clock: SetClock) -> None:
        self.client = client
        self.clock = clock
        self.oem = Member("did:web:oem.example", "Longhe Motors 龙河汽车", "oem")
        self.insurer = Member("did:web:insurer-a.example", "Anping Insurance 安平保险", "insurer")
        self.auditor = Member("did:web:auditor.example", "Zhengming Audit 正明审计", "trustee")
        self._tokens = {n: read_token(home / "keys", n) for n in (INTERNAL_TOKEN, OPERATOR_TOKEN)}

    @property
    def members(self) -> tuple[Member, ...]:
        """Every party of this federation."""
        return (self.oem, self.insurer, self.auditor)

    @property
    def operator(self) -> dict[str, str]:
        """The headers of the operator."""
        return {"Authorization": f"Bearer {self._tokens[OPERATOR_TOKEN]}"}

    @property
    def internal(self) -> dict[str, str]:
        """The headers of the ServerApp process."""
        return {"Authorization": f"Bearer {self._tokens[INTERNAL_TOKEN]}"}

    def post(self, path: str, content: Any, **headers: str) -> httpx.Response:
        """Send a body without any token but those given."""
        return self.client.post(path, json=content, headers=headers)

    def enrol(self, *members: Member) -> None:
        """Enrol parties, or all three."""
        for member in members or self.members:
            done = self.client.post("/v1/parties", json=member.enrolment(), headers=self.operator)
            done.raise_for_status()

    def offer(self, text: str | None = None) -> str:
        """Offer the contract; return its digest."""
        text = contract_text((self.oem, self.insurer)) if text is None else text
        done = self.client.post("/v1/contracts", json={"text": text}, headers=self.operator)
        done.raise_for_status()
        return str(done.json()["digest"])

    def entry(self, member: Member, text: str, **changes: str) -> Json:
        """Return a party's signature entry over a contract text."""
        at = f"{self.clock():%Y-%m-%dT%H:%M:%S}Z"
        entry = sign(
            Contract.parse(text),
            party=member.id,
            kid=member.kid,
            sig_t=at,
            private_key=member.identity,
        )
        return dict(entry) | changes

    def sign(self, digest: str, *members: Member) -> Json:
        """Have parties sign an offered contract; return the last answer."""
        text = str(self.client.get(f"/v1/contracts/{digest}").json()["text"])
        answer: Json = {}
        for member in members:
            path = f"/v1/contracts/{digest}/signatures"
            done = self.client.post(path, json={"entry": self.entry(member, text)})
            done.raise_for_status()
            answer = done.json()
        return answer

    def agree(self) -> str:
        """Enrol everybody and bring a contract into force; return its digest."""
        self.enrol()
        digest = self.offer()
        self.sign(digest, self.oem, self.insurer)
        return digest

    def ask(self, digest: str, **changes: Any) -> httpx.Response:
        """Ask for a risk run."""
        asked = {
            "contractDigest": digest,
            "algorithm": "risk",
            "requester": self.insurer.id,
            "purpose": "convoy:RiskModelTraining",
        }
        return self.client.post("/v1/runs", json=asked | changes, headers=self.operator)

    def claim(self) -> Json | None:
        """Claim the next run as the ServerApp does."""
        done = self.client.get("/internal/runs/next", headers=self.internal)
        done.raise_for_status()
        return None if done.status_code == 204 else dict(done.json())

    def finish(self, uid: str) -> None:
        """Take a run through every state to finished."""
        self.authorise(uid)
        for state in ("running", "finished"):
            self.move(uid, state).raise_for_status()

    def authorise(self, uid: str) -> None:
        """Have a run's ground cosigned, log its authorisation, have that cosigned and move the run there, as the ServerApp does."""
        self.witness(*self.members)
        self.append(self.authorisation(uid)).raise_for_status()
        self.witness(*self.members)
        self.move(uid, "authorised").raise_for_status()

    def authorisation(self, uid: str) -> bytes:
        """Return the entry that authorises a run."""
        run = dict(self.client.get(f"/v1/runs/{uid}").json())
        event = RunAuthorised(
            at=self.clock(),
            run=uid,
            contract=run["contractDigest"],
            scope=NO_DIGEST,
            algorithm=NO_DIGEST,
            plan=NO_DIGEST,
            round=run["round"],
            requester=run["requester"],
            purpose=run["purpose"],
            providers=(self.oem.id, self.insurer.id),
            epsilon_micro={DRIVE: 4_000_000, CLAIMS: 4_000_000},
            delta_nano={DRIVE: 1000, CLAIMS: 1000},
        )
        return encode(event)

    def append(self, *entries: bytes) -> httpx.Response:
        """Append entries to the log as the ServerApp does."""
        body = {"entries": [b64encode(raw).decode() for raw in entries]}
        return self.client.post("/internal/log/append", json=body, headers=self.internal)

    def move(self, uid: str, state: str, **why: Any) -> httpx.Response:
        """Move a run as the ServerApp does."""
        path = f"/internal/runs/{uid}/state"
        return self.client.post(path, json={"state": state, **why}, headers=self.internal)

    def log_size(self) -> int:
        """Return the number of entries in the log."""
        done = self.client.post("/internal/log/checkpoint", headers=self.internal)
        done.raise_for_status()
        return int(done.json()["checkpoint"].splitlines()[1])

    def witness(self, *members: Member) -> Json:
        """Sign a checkpoint and have it cosigned by parties; return the standing of the quorum."""
        done = self.client.post("/internal/log/checkpoint", headers=self.internal)
        done.raise_for_status()
        note = str(done.json()["checkpoint"])
        body = note.split("\n\n")[0].encode() + b"\n"
        time_s = int(self.clock().timestamp())
        note += "".join(member.witness.line(body, time_s) for member in members)
        path = "/internal/log/cosignatures"
        stored = self.client.post(path, json={"note": note}, headers=self.internal)
        stored.raise_for_status()
        return dict(stored.json())
