"""Join settings, keys, database, log and services. The web application and the commands use the
same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from sqlalchemy import Engine, text

from convoy_audit.errors import AuditError
from convoy_audit.keys import SignatureType
from convoy_audit.note import Signer
from convoy_audit.retention import RetentionPlan
from convoy_coordinator.catalogue.service import CatalogueService
from convoy_coordinator.console.pages import LogView
from convoy_coordinator.contracts.changes import ChangeService
from convoy_coordinator.contracts.service import ContractService
from convoy_coordinator.db.migrate import prepare
from convoy_coordinator.db.session import open_engine, session_factory
from convoy_coordinator.enrolment.access import AccessService
from convoy_coordinator.enrolment.authorities import Authorities, Succession
from convoy_coordinator.enrolment.refusals import Refusals
from convoy_coordinator.enrolment.service import EnrolmentService
from convoy_coordinator.errors import SetupError
from convoy_coordinator.evidence.service import EvidenceService
from convoy_coordinator.intake import Intake
from convoy_coordinator.journal import Clock, Journal, now_utc
from convoy_coordinator.keys import Keys, read_keys
from convoy_coordinator.ledgers.service import LedgerService
from convoy_coordinator.log import LogService
from convoy_coordinator.log.outside import WITNESSES_FILE, OutsideWitness, read_witnesses
from convoy_coordinator.log.publisher import Publisher
from convoy_coordinator.log.retention import RetentionJob
from convoy_coordinator.log.stamps import StampAuthority, StampJob, stamps
from convoy_coordinator.parties.service import PartyService, witness_keys
from convoy_coordinator.parties.store import short_name
from convoy_coordinator.parties.witnesses import WitnessKeys, former_witness_keys
from convoy_coordinator.releases.service import ReleaseService
from convoy_coordinator.runs.service import RunService
from convoy_coordinator.schedules.service import ScheduleService
from convoy_coordinator.settings import Settings


@dataclass(frozen=True, slots=True)
class Parts:
    """Every part of a coordinator, joined."""

    settings: Settings
    clock: Clock
    keys: Keys
    engine: Engine
    log: LogService
    witnesses: tuple[OutsideWitness, ...]
    publisher: Publisher
    retention: RetentionJob
    stamping: StampJob
    journal: Journal
    intake: Intake
    ledgers: LedgerService
    parties: PartyService
    contracts: ContractService
    changes: ChangeService
    catalogue: CatalogueService
    runs: RunService
    schedules: ScheduleService
    releases: ReleaseService
    evidence: EvidenceService
    enrolment: EnrolmentService
    access: AccessService
    succession: Succession
    refusals: Refusals

    def log_view(self) -> LogView:
        """Return the log as people see it, with how far each witness has come."""
        parties = self.parties.all()
        sizes = {party.id: self.log.witness_size(party.id) for party in parties}
        policy = self.log.policy()
        view = LogView(
            origin=self.settings.origin,
            policy_digest=policy.digest,
            size=self.log.size(),
            checkpoint_size=0,
            root=None,
            cosigned=(),
            needed=policy.needed,
            witness_sizes=sizes,
        )
        note = self.log.latest()
        if note is None:
            return view
        standing = policy.standing(note.encode())
        return replace(
            view,
            checkpoint_size=standing.checkpoint.size,
            root=standing.checkpoint.root.hex(),
            cosigned=tuple(short_name(name) for name in standing.cosigned),
        )

    def checks(self) -> Mapping[str, Callable[[], None]]:
        """Return what ``/readyz`` asks."""
        return {"database": self._check_database, "log": self._check_log}

    def close(self) -> None:
        """Stop the log's publisher and writer and let the database go."""
        self.schedules.stop()
        self.publisher.stop()
        self.retention.stop()
        self.stamping.stop()
        self.log.close()
        self.engine.dispose()

    def _check_database(self) -> None:
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def _check_log(self) -> None:
        self.log.size()


def log_signers(settings: Settings, keys: Keys) -> tuple[Signer, ...]:
    """Return the two keys that sign every checkpoint: Ed25519 and ML-DSA-44."""
    return (
        Signer.from_seed(settings.origin, SignatureType.ED25519, keys.log_seed),
        Signer.from_seed(settings.origin, SignatureType.COSIGNATURE_ML_DSA_44, keys.log_seed_pq),
    )


def retention_plan(settings: Settings) -> RetentionPlan:
    """Return how long each kind of entry is kept; the floors hold whatever the settings say."""
    decisions = settings.retention_decisions_days
    return RetentionPlan(settings.retention_logs_days, decisions, decisions, decisions)


def stamp_authority(settings: Settings) -> StampAuthority | None:
    """Return the time-stamping authority of the settings, None if none is named.

    Raises:
        SetupError: SETTINGS_INVALID, an address without root certificates.
    """
    if settings.tsa_url is None:
        return None
    if settings.tsa_root_file is None:
        raise SetupError(
            "SETTINGS_INVALID",
            "tsa_url is set without tsa_root_file, so no answer could be verified",
            fix="Name the file with the authority's root certificates (PEM) in tsa_root_file.",
        )
    return StampAuthority(settings.tsa_url, settings.tsa_root_file)


def log_keys(settings: Settings, keys: Keys) -> tuple[str, ...]:
    """Return the verifier keys that partners pin."""
    return tuple(signer.vkey for signer in log_signers(settings, keys))


def wire(settings: Settings, clock: Clock = now_utc) -> Parts:
    """Join the parts of the coordinator whose home the settings name.

    Raises:
        SetupError: the home is not initialised, a key is missing, or the database is of another
            version.
    """
    keys = read_keys(settings.keys_folder)
    engine = open_engine(settings.url)
    prepare(engine)
    sessions = session_factory(engine)
    listening = read_witnesses(settings.home / WITNESSES_FILE)
    counted = {w.party: w.vkeys for w in listening if w.counts and w.vkeys}
    try:
        log = LogService(
            sessions,
            settings.origin,
            log_signers(settings, keys),
            witnesses=lambda: {**counted, **witness_keys(sessions)},
            others=lambda: {
                **{w.party: w.vkeys for w in listening if not w.counts and w.vkeys},
                **former_witness_keys(sessions),
            },
            clock=clock,
            deadline_s=settings.log_deadline_s,
        )
    except AuditError as error:
        raise SetupError(error.code, error.cause, fix=error.fix) from None
    journal = Journal(log, clock)
    parties = PartyService(sessions, journal, clock)
    contracts = ContractService(sessions, journal, parties, clock)
    runs = RunService(sessions, journal, contracts, clock, settings.run_lease_s)
    releases = ReleaseService(sessions, journal, runs, settings.releases_folder, keys.release_key, clock)
    intake = Intake(journal, parties, contracts, runs, log)

    def authorities() -> Authorities:
        return Authorities.open(settings.keys_folder, settings.tls_folder, settings.name, clock())

    access = AccessService(
        sessions, journal, parties, WitnessKeys(sessions, journal, parties), intake, authorities, clock
    )
    enrolment = EnrolmentService(
        sessions,
        journal,
        parties,
        access,
        authorities,
        settings.enrolment_at,
        settings.origin,
        log_keys(settings, keys),
        clock,
    )
    return Parts(
        settings=settings,
        clock=clock,
        keys=keys,
        engine=engine,
        log=log,
        witnesses=listening,
        publisher=Publisher(log, listening, interval_s=settings.checkpoint_interval_s),
        retention=RetentionJob(log, journal, settings.archive, retention_plan(settings), clock),
        stamping=StampJob(log, settings.stamps_folder, stamp_authority(settings), clock),
        journal=journal,
        intake=intake,
        ledgers=LedgerService(sessions, log, parties),
        parties=parties,
        contracts=contracts,
        changes=ChangeService(sessions, journal, contracts, parties, clock),
        catalogue=CatalogueService(sessions, journal, contracts, parties, clock),
        runs=runs,
        schedules=ScheduleService(sessions, runs, clock),
        releases=releases,
        evidence=EvidenceService(log, contracts, releases, clock, lambda: stamps(settings.stamps_folder)),
        enrolment=enrolment,
        access=access,
        succession=Succession(settings.keys_folder, settings.tls_folder, settings.name, journal, log, clock),
        refusals=Refusals(journal),
    )
