"""Take signed catalogue entries and tier grants: tightening at once, loosening when everybody concerned has signed.

The log is written before an entry or a grant has effect.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from convoy_audit.events import AssetCatalogued, ChangeRefused, TierGranted
from convoy_contracts.catalogue import CatalogueEntry, Change, EntryChange, first_tier, parse_entry
from convoy_contracts.decide.world import read_keys
from convoy_contracts.document import Contract
from convoy_contracts.errors import DocumentMalformed
from convoy_contracts.grants import TierGrant, entry_signers, grant_signers, parse_grant, value_faults
from convoy_contracts.lifecycle import AGREED
from convoy_coordinator.catalogue import store
from convoy_coordinator.catalogue.store import Catalogued, Granted
from convoy_coordinator.contracts import proposals
from convoy_coordinator.contracts.proposals import Proposal
from convoy_coordinator.contracts.service import ContractService
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.parties.service import PartyService

ENTRY, GRANT = "catalogue-entry", "tier-grant"
Proofs = Sequence[Mapping[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an entry or a grant: accepted, known or waiting, and who must still sign."""

    digest: str
    outcome: str
    missing: tuple[str, ...]
    changes: tuple[EntryChange, ...] = ()


class CatalogueService:
    """The catalogue of the federation, and its partners' tiers.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        contracts: who relies on an asset.
        parties: whose keys proofs are verified with.
        clock: the present instant.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        contracts: ContractService,
        parties: PartyService,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._contracts = contracts
        self._parties = parties
        self._clock = clock

    def all(self) -> tuple[Catalogued, ...]:
        """Return the newest entry of every asset."""
        with self._sessions() as session:
            return store.latest(session)

    def versions(self, asset: str) -> tuple[Catalogued, ...]:
        """Return every version of an asset's entry, oldest first.

        Raises:
            Problem: ASSET_UNKNOWN.
        """
        with self._sessions() as session:
            found = store.versions(session, asset)
        if not found:
            raise Problem("ASSET_UNKNOWN", f"no asset {asset[:200]!r}")
        return found

    def register(self, value: Mapping[str, Any], proofs: Proofs) -> Taken:
        """Take a version of an asset's entry; the same one again changes nothing.

        Raises:
            Problem: ENTRY_MALFORMED, ENTRY_REFUSED or SIGNATURE_REFUSED.
        """
        entry = _read(value, parse_entry)
        with self._journal.order():
            with self._sessions() as session:
                known = store.versions(session, entry.asset)
            if any(found.digest == entry.digest for found in known):
                return Taken(entry.digest, "known", ())
            old = parse_entry(dict(known[-1].entry)) if known else None
            self._check_place(entry, old)
            signers, changes = entry_signers(old, entry, self._relying(entry.asset))
            joined = self._join(ENTRY, entry, proofs, entry.asset, entry.owner)
            missing = tuple(sorted(signers - {str(proof["party"]) for proof in joined}))
            if missing:
                self._keep(ENTRY, entry.asset, entry, joined)
                return Taken(entry.digest, "waiting", missing, tuple(changes))
            index = self._journal.record(_catalogued(entry, changes))
            # If we die here: the log knows a version without effect; the same entry can be sent again.
            with writing(self._sessions) as session:
                store.insert_entry(
                    session,
                    Catalogued(
                        entry.asset, entry.version, entry.digest, entry.as_json(), _plain(joined), self._clock(), index
                    ),
                )
                proposals.clear(session, ENTRY, entry.asset)
        return Taken(entry.digest, "accepted", (), tuple(changes))

    def tiers(self) -> dict[str, str]:
        """Return every party's tier now: granted, or that with which its role starts."""
        with self._sessions() as session:
            granted = {grant.party: grant.tier for grant in store.grants(session)}
        return {party.id: granted.get(party.id, first_tier([party.role])) for party in self._parties.all()}

    def grants(self, party: str) -> tuple[Granted, ...]:
        """Return a party's grants, oldest first."""
        with self._sessions() as session:
            return store.grants(session, party)

    def grant(self, value: Mapping[str, Any], proofs: Proofs) -> Taken:
        """Take a tier grant; the same one again changes nothing.

        Raises:
            Problem: ENTRY_MALFORMED, PARTY_UNKNOWN, ENTRY_REFUSED or SIGNATURE_REFUSED.
        """
        grant = _read(value, parse_grant)
        with self._journal.order():
            self._parties.get(grant.party)
            known = self.grants(grant.party)
            if any(found.digest == grant.digest for found in known):
                return Taken(grant.digest, "known", ())
            last = known[-1].digest if known else None
            if grant.previous != last:
                self._refuse(grant.party, "grant-tier", grant.party, "CHAIN_MOVED", f"the last grant is {last}")
            owners = {str(found.entry["owner"]) for found in self.all()}
            able, needed = grant_signers(self.tiers()[grant.party], grant, owners)
            joined = self._join(GRANT, grant, proofs, grant.party, grant.party)
            signed = able & {str(proof["party"]) for proof in joined}
            if len(signed) < needed:
                self._keep(GRANT, grant.party, grant, joined)
                return Taken(grant.digest, "waiting", tuple(sorted(able - signed)))
            by = tuple(sorted(signed))
            index = self._journal.record(
                lambda at: TierGranted(at=at, party=grant.party, tier=grant.tier, by=by, grant=grant.digest)
            )
            # If we die here: the log knows a grant without effect; the same grant can be sent again.
            with writing(self._sessions) as session:
                store.insert_grant(
                    session,
                    Granted(
                        grant.digest, grant.party, grant.tier, grant.as_json(), _plain(joined), self._clock(), index
                    ),
                )
                proposals.clear(session, GRANT, grant.party)
        return Taken(grant.digest, "accepted", ())

    def _relying(self, asset: str) -> set[str]:
        """Return the parties of every agreed contract that schedules the asset."""
        return {
            party
            for view in self._contracts.all()
            if view.standing.state in AGREED and Contract.parse(view.contract.text).schedule(asset) is not None
            for party in view.agreed.parties
        }

    def _check_place(self, entry: CatalogueEntry, old: CatalogueEntry | None) -> None:
        expected = (1, None) if old is None else (old.version + 1, old.digest)
        if (entry.version, entry.previous) != expected:
            cause = f"the next version is {expected[0]} after {expected[1]}"
            self._refuse(entry.asset, "catalogue", entry.owner, "CHAIN_MOVED", cause)
        enrolled = {party.id for party in self._parties.all()}
        if entry.owner not in enrolled:
            self._refuse(
                entry.asset, "catalogue", entry.owner, "NOT_A_PARTY", f"the owner {entry.owner} is not enrolled"
            )

    def _join(
        self, kind: str, value: CatalogueEntry | TierGrant, proofs: Proofs, subject: str, by: str
    ) -> tuple[Mapping[str, Any], ...]:
        faults = value_faults(value, proofs, read_keys({"keys": self._parties.key_ring()}))
        if faults or not proofs:
            code = next(iter(faults.values()), "SIGNATURE_MISSING")
            self._journal.record(_refused(subject, kind, by, code))
            causes = [f"{party}: {fault}" for party, fault in sorted(faults.items())]
            raise Problem(
                "SIGNATURE_REFUSED",
                "; ".join(causes)[:2000] or "SIGNATURE_MISSING: there is no proof",
                faults=[Fault("/proof", cause) for cause in causes[:50]],
                fix="Sign it again with the enrolled key: convoy-contracts catalogue sign.",
            )
        with self._sessions() as session:
            known = proposals.find(session, value.digest)
        return proposals.joined(known.proofs if known else (), proofs)

    def _keep(self, kind: str, subject: str, value: CatalogueEntry | TierGrant, joined: Proofs) -> None:
        proposal = Proposal(value.digest, kind, subject, value.as_json(), tuple(joined), self._clock())
        with writing(self._sessions) as session:
            proposals.keep(session, proposal)

    def _refuse(self, subject: str, change: str, by: str, code: str, cause: str) -> NoReturn:
        self._journal.record(_refused(subject, change, by, code))
        raise Problem("ENTRY_REFUSED", f"{code}: {cause}", party=by[:200])


def _read(value: Mapping[str, Any], parse: Callable[[Any], T]) -> T:
    try:
        return parse(dict(value))
    except DocumentMalformed as error:
        faults = [Fault("/value", problem) for problem in error.problems[:50]]
        raise Problem("ENTRY_MALFORMED", error.cause[:2000], faults=faults) from None


def _plain(proofs: Proofs) -> list[dict[str, Any]]:
    return [dict(proof) for proof in proofs]


def _catalogued(entry: CatalogueEntry, changes: Sequence[EntryChange]) -> Author:
    return lambda at: AssetCatalogued(
        at=at,
        asset=entry.asset,
        version=entry.version,
        owner=entry.owner,
        steward=entry.steward,
        entry=entry.digest,
        raised=sum(change.change is Change.RAISED for change in changes),
        lowered=sum(change.change is Change.LOWERED for change in changes),
    )


def _refused(subject: str, change: str, by: str, code: str) -> Author:
    return lambda at: ChangeRefused(at=at, uid=subject, change=change, by=by, code=code)
