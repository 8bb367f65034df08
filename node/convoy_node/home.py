"""A node's folder, opened: settings, keys, ledger, register, memory, witness, signed contracts, log.

node.toml  pins.toml            settings (``settings``)
keys/                           private keys (``identity``)
ledger.db  register.db  node.db privacy ledger, consents, memory of requests
duties.db  influence.db         duties with evidence; who was in which run
witness/                        the last checkpoint of the log, and alarms
contracts/                      what this node has signed (``setup.sign_contract``)
log/node.jsonl                  the node's own log (``journal``); never row data
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from convoy_audit.note import Verifier
from convoy_audit.policy import Policy, make_policy
from convoy_audit.witness import Witness
from convoy_contracts.document import Contract
from convoy_node import desk, duties, setup
from convoy_node.backup.standing import check_current, check_ledger
from convoy_node.consent.office import ConsentOffice
from convoy_node.consent.watermark import Watermark
from convoy_node.desk import Influence
from convoy_node.duties import DutyDesk
from convoy_node.errors import ActionRefused, LedgerError
from convoy_node.identity import Identity
from convoy_node.ledger import Ledger
from convoy_node.memory import Memory
from convoy_node.register import Register
from convoy_node.settings import Settings
from convoy_node.witness_home import KeptWitness

LEDGER, REGISTER, MEMORY = "ledger.db", "register.db", "node.db"


@dataclass(slots=True)
class NodeHome:
    """Everything a node keeps; one process at a time."""

    path: Path
    settings: Settings
    identity: Identity
    ledger: Ledger
    register: Register
    memory: Memory
    witnesses: KeptWitness
    office: ConsentOffice
    duties: DutyDesk
    influence: Influence

    @classmethod
    def open(cls, path: Path, *, clock: Callable[[], datetime]) -> NodeHome:
        """Open a folder that ``setup.create_home`` made.

        Raises:
            NodeError: settings, keys or files that cannot be used; another process holds the ledger; or files that were put
                back from an older copy (``backup.standing``).
        """
        settings = Settings.load(path)
        check_current(path)
        identity = Identity.load(path / "keys", settings.party)
        ledger = Ledger(path / LEDGER, clock=clock)
        logs = [Verifier.parse(key) for key in settings.log_keys]
        register, memory = Register(path / REGISTER, party=settings.party), Memory(path / MEMORY)
        try:
            check_ledger(path, ledger, memory, settings.party)
        except LedgerError:
            ledger.close()
            raise
        office = ConsentOffice(
            settings, identity, register, memory, Watermark(path / MEMORY), lambda: setup.contracts(path), clock
        )
        return cls(
            path=path,
            settings=settings,
            identity=identity,
            ledger=ledger,
            register=register,
            memory=memory,
            witnesses=KeptWitness(path, settings.party, {settings.log_origin: logs}),
            office=office,
            duties=DutyDesk(path / duties.FILE, office),
            influence=Influence(path / desk.FILE),
        )

    def close(self) -> None:
        """Close every file."""
        self.ledger.close()
        self.office.close()
        self.duties.close()
        self.influence.close()

    @property
    def witness(self) -> Witness:
        """This node's witness, with the keys that it has now."""
        return self.witnesses.now()

    @property
    def origin(self) -> str:
        """The log that this node believes."""
        return self.settings.log_origin

    def contracts(self) -> list[str]:
        """Return the digests of the contracts that this node has signed."""
        return sorted(setup.contracts(self.path))

    def own_asset(self, contract: Contract) -> str | None:
        """Return this party's asset in a contract, if it provides one.

        Raises:
            ActionRefused: the contract schedules an asset of this party that node.toml does not name.
        """
        asset = next((row.asset for row in contract.data if row.provider == self.settings.party), None)
        if asset is not None and asset != self.settings.asset:
            raise ActionRefused(
                f"the contract schedules {asset}, which node.toml does not name.",
                party=self.settings.party,
                code="ASSET_UNKNOWN",
                fix="Name the asset with its fields, grades and yearly cap in node.toml.",
            )
        return asset

    def policy(self, contract: Contract) -> Policy:
        """Return the witness policy of a contract: the pinned log, and the parties' witness keys that all have signed."""
        keys = {p.id: p.witnessKey.split("\n") for p in contract.parties if p.witnessKey is not None}
        names = {party: [Verifier.parse(key) for key in vkeys] for party, vkeys in keys.items()}
        return make_policy(
            self.settings.log_keys, {own[0].name: [k.vkey for k in own] for own in names.values()}
        )  # fmt: skip
