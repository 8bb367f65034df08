"""Import every module that maps a table, so that ``Base.metadata`` is whole.

``TABLES`` is the list a reader can trust; a test compares it with the migrations.
"""

from __future__ import annotations

from typing import Final

from convoy_coordinator.contracts import store as _contracts
from convoy_coordinator.ledgers import store as _ledgers
from convoy_coordinator.log import tables as _log
from convoy_coordinator.parties import store as _parties
from convoy_coordinator.releases import store as _releases
from convoy_coordinator.runs import store as _runs

MODULES: Final = (_parties, _contracts, _runs, _releases, _ledgers, _log)
TABLES: Final = frozenset(
    {
        *("party", "contract", "contract_signature", "contract_event", "run", "release"),
        *("ledger", "ledger_position"),
        *("log_entry", "log_frontier", "log_checkpoint", "log_cosignature"),
    }
)
