"""Import every module that maps a table, so that ``Base.metadata`` is whole.

``TABLES`` is the list a reader can trust; a test compares it with the migrations.
"""

from __future__ import annotations

from typing import Final

from convoy_coordinator.catalogue import store as _catalogue
from convoy_coordinator.contracts import proposals as _proposals
from convoy_coordinator.contracts import store as _contracts
from convoy_coordinator.enrolment import store as _enrolment
from convoy_coordinator.ledgers import store as _ledgers
from convoy_coordinator.log import tables as _log
from convoy_coordinator.parties import store as _parties
from convoy_coordinator.parties import witnesses as _witnesses
from convoy_coordinator.releases import store as _releases
from convoy_coordinator.runs import store as _runs
from convoy_coordinator.schedules import store as _schedules

MODULES: Final = (
    _parties,
    _witnesses,
    _contracts,
    _proposals,
    _catalogue,
    _runs,
    _releases,
    _ledgers,
    _enrolment,
    _log,
    _schedules,
)
TABLES: Final = frozenset(
    {
        *("party", "contract", "contract_signature", "contract_event", "run", "release"),
        *("signed_proposal", "catalogue_entry", "tier_grant"),
        *("ledger", "ledger_run", "ledger_position", "schedule"),
        *("party_key", "party_standing", "former_witness", "invitation", "enrolment_request", "certificate"),
        *("log_entry", "log_frontier", "log_checkpoint", "log_cosignature"),
    }
)
