"""A small federation in memory with everything real: keys, contract, run, statements, witnesses.

    Rehearsal(parties=4): .log, .members, .witnesses, .policy, .contract, .signatures, .manifest
      .cosigned(size=None) -> bytes        a checkpoint with every witness's cosignature
      .parts() -> Parts                    a whole evidence pack
      .state(member, event) -> bytes       a statement, numbered and chained, and logged

For tests, tamper drills and training of auditors. Deterministic: seeds and instants are fixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from convoy_audit import events
from convoy_audit.canonical import Json, b64u, canonical_bytes, digest
from convoy_audit.entry import encode
from convoy_audit.keys import SignatureType, key_id_of, public_of_seed, sign_raw
from convoy_audit.note import Signer
from convoy_audit.pack import Parts, SignedContract
from convoy_audit.policy import Policy, make_policy
from convoy_audit.statement import next_link, sign_statement
from convoy_audit.testing import HYBRID_LOG, HYBRID_WITNESS, MemoryLog, MemoryWitnessStore
from convoy_audit.witness import Witness

START = datetime(2026, 11, 24, 3, 0, tzinfo=UTC)
ORIGIN = "convoy.example/log"
RUN = "run-1"


@dataclass(slots=True)
class Member:
    """A party with its private seed and its last statement."""

    party: str
    role: str
    seed: bytes = field(repr=False)
    last: bytes | None = None

    @property
    def public(self) -> bytes:
        """The enrolled key."""
        return public_of_seed(SignatureType.ED25519, self.seed)


class Rehearsal:
    """One contract, one run, one release, and a denial."""

    def __init__(self, parties: int = 4) -> None:
        self._now = START
        self.log = MemoryLog(ORIGIN, ())
        self.log.signers = tuple(Signer.from_seed(ORIGIN, kind, _seed(f"log {kind}")) for kind in HYBRID_LOG)
        names = ["oem", *(f"insurer-{chr(97 + i)}" for i in range(parties - 2)), "auditor"]
        self.members = [Member(f"did:web:{name}.example", name.split("-")[0], _seed(name)) for name in names]
        self.witnesses = {m.party: self._witness(m) for m in self.members}
        vkeys = {p: [v.vkey for v in w.verifiers] for p, w in self.witnesses.items()}
        self.policy: Policy = make_policy(self.log.vkeys, vkeys)
        self.contract = canonical_bytes(
            {"uid": "contract-1", "version": 1, "parties": [{"id": m.party} for m in self.members]}
        )
        self.signatures = [self._sign(member) for member in self.members]
        self.card = "# Model card of a rehearsal · 演练模型卡\n".encode()
        self.manifest = canonical_bytes({"files": {"card.md": digest(self.card)}, "run": RUN})
        self._tell()

    @property
    def contract_digest(self) -> str:
        """The contract's digest."""
        return digest(self.contract)

    def tick(self) -> datetime:
        """Let a second go by."""
        self._now += timedelta(seconds=1)
        return self._now

    def record(self, event: events.Event) -> None:
        """Log an event of the coordinator."""
        self.log.append(encode(event))

    def state(self, member: Member, event: events.StatedEvent) -> bytes:
        """Let a party state an event, and log it."""
        number, previous = next_link(member.last)
        member.last = sign_statement(event, number=number, previous=previous, seed=member.seed)
        self.log.append(member.last)
        return member.last

    def cosigned(self, size: int | None = None, by: Sequence[str] | None = None) -> bytes:
        """Have a checkpoint cosigned by the named parties, by all if none are named."""
        note = self.log.checkpoint(size, int(self._now.timestamp()))
        parties = list(self.witnesses) if by is None else by
        added = ""
        for party in parties:
            witness = self.witnesses[party]
            old = witness.size(ORIGIN)
            proof = self.log.consistency(old, size)
            time_s = int(self._now.timestamp())
            added += witness.add_checkpoint(note, old, proof, time_s).lines
        return note + added.encode()

    def parts(self) -> Parts:
        """Return the parts of a whole evidence pack over everything logged so far."""
        middle = self.log.tree.size // 2
        return Parts(
            policy=self.policy.text,
            checkpoint=self.cosigned(),
            entries=list(self.log.entries),
            made_at=self.tick(),
            checkpoints=[self.log.checkpoint(middle)],
            contracts=[SignedContract(self.contract, self.signatures)],
            manifests={RUN: self.manifest},
            release_files={RUN: {"card.md": self.card}},
        )

    def _tell(self) -> None:
        contract, assets = self.contract_digest, {"asset-1": 2_900_000}
        for m in self.members:
            self.record(
                events.PartyEnrolled(
                    at=self.tick(),
                    party=m.party,
                    role=m.role,
                    identity_key=m.public,
                    witness_keys=tuple(v.vkey for v in self.witnesses[m.party].verifiers),
                )
            )
        parties = tuple(m.party for m in self.members)
        self.record(
            events.ContractOffered(at=self.tick(), contract=contract, uid="contract-1", version=1, parties=parties)
        )
        for m, signature in zip(self.members, self.signatures, strict=True):
            self.record(
                events.ContractSigned(
                    at=self.tick(),
                    contract=contract,
                    party=m.party,
                    key_id=key_id_of(m.public),
                    signature=digest(canonical_bytes(signature)),
                )
            )
        self.record(events.ContractActivated(at=self.tick(), contract=contract, uid="contract-1", version=1))
        scope = digest(b"scope")
        self.record(
            events.RunAuthorised(
                at=self.tick(),
                run=RUN,
                contract=contract,
                scope=scope,
                algorithm=digest(b"algorithm"),
                plan=digest(b"plan"),
                round=1,
                requester=parties[0],
                purpose="convoy:riskModel",
                providers=parties[:-1],
                epsilon_micro=assets,
                delta_nano={"asset-1": 1000},
            )
        )
        for m in self.members:
            self.state(
                m,
                events.DecisionMade(
                    at=self.tick(),
                    party=m.party,
                    run=RUN,
                    contract=contract,
                    phase="authorise",
                    scope=scope,
                    outcome="allow",
                ),
            )
        for m in self.members[:-1]:
            self.state(
                m,
                events.LedgerStated(
                    at=self.tick(),
                    party=m.party,
                    run=RUN,
                    contract=contract,
                    step="spent",
                    epsilon_micro=assets,
                    total_micro=assets,
                    cap_micro={"asset-1": 6_000_000},
                ),
            )
        self.record(events.ReleasePublished(at=self.tick(), run=RUN, contract=contract, manifest=digest(self.manifest)))
        self.record(events.RunFinished(at=self.tick(), run=RUN, contract=contract, manifest=digest(self.manifest)))
        self.state(
            self.members[0],
            events.DecisionMade(
                at=self.tick(),
                party=parties[0],
                run="run-2",
                contract=contract,
                phase="authorise",
                outcome="deny",
                reasons=("BUDGET_EXHAUSTED",),
            ),
        )

    def _witness(self, member: Member) -> Witness:
        name = member.party.removeprefix("did:web:")
        signers = [Signer.from_seed(name, kind, _seed(f"{name} {kind}")) for kind in HYBRID_WITNESS]
        logs = [signer.verifier for signer in self.log.signers]
        return Witness(signers, logs, MemoryWitnessStore())

    def _sign(self, member: Member) -> dict[str, Json]:
        kid, time = f"{member.party}#1", "2026-11-24T02:00:00Z"
        header = {"alg": "Ed25519", "kid": kid, "typ": "convoy-contract-sig+jws"}
        payload = {
            "typ": "convoy-contract-sig/1",
            "act": "sign",
            "role": "business",
            "party": member.party,
            "sigT": time,
            "uid": "contract-1",
            "version": 1,
            "digest": self.contract_digest,
        }
        head = b64u(canonical_bytes(header))
        message = f"{head}.{b64u(canonical_bytes(payload))}".encode()
        jws = f"{head}..{b64u(sign_raw(SignatureType.ED25519, member.seed, message))}"
        entry: dict[str, Json] = {"party": member.party, "role": "business", "act": "sign"}
        return entry | {"kid": kid, "sigT": time, "jws": jws}


def _seed(label: str) -> bytes:
    return hashlib.sha256(b"convoy rehearsal " + label.encode()).digest()
