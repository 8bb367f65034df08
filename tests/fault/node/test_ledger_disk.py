"""A full disk and a torn file: the ledger refuses, and says so in its own words."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from convoy_node.errors import LedgerDamaged
from convoy_node.ledger import Charge, Ledger

_CHILD = """
import resource, signal, sys
from pathlib import Path
from convoy_node.errors import LedgerError
from convoy_node.ledger import Charge, Ledger

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger(Path(sys.argv[1]))
charges = [Charge(f"q{n}", "joint", 1e-4, 100.0, 1.0) for n in range(200)]
ledger.reserve("r1", 1, "risk", "asset", 2026, 1e-6, charges, contract_cap_micro=10**9, asset_cap_micro=10**9)
wal = Path(sys.argv[1] + "-wal")
resource.setrlimit(resource.RLIMIT_FSIZE, (wal.stat().st_size + 50_000, resource.RLIM_INFINITY))
for charge in charges:
    try:
        ledger.spend("r1", charge.query, 1)
    except LedgerError as error:
        print("refused", error.code, flush=True)
        sys.exit(0)
    print("spent", charge.query, flush=True)
"""


def test_a_full_disk_refuses_the_spend_and_loses_none(tmp_path: Path) -> None:
    """The file may not grow any more: the spend raises, earlier ones are there after a restart."""
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    done = subprocess.run([sys.executable, "-c", _CHILD, str(path)], capture_output=True, text=True, check=True)
    *spent, last = done.stdout.splitlines()
    assert last == "refused LEDGER_WRITE_FAILED"
    acknowledged = {line.split()[1] for line in spent}
    assert acknowledged
    with Ledger(path) as ledger:
        assert acknowledged <= {event.query for event in ledger.events()}


def test_a_torn_file_is_not_opened(tmp_path: Path) -> None:
    """A ledger cut short or overwritten in the middle stops the node."""
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    with Ledger(path) as ledger:
        charges = [Charge(f"q{n}", "joint", 1e-6, 1 / math.sqrt(1e-6), 1.0) for n in range(500)]
        ledger.reserve("r1", 1, "c", "a", 2026, 1e-6, charges, contract_cap_micro=10**9, asset_cap_micro=10**9)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for torn in (whole[:middle], whole[:middle] + bytes(8192) + whole[middle + 8192 :], b"", whole[:50]):
        path.write_bytes(torn)
        with pytest.raises(LedgerDamaged):
            Ledger(path)
    path.write_bytes(whole)
    with Ledger(path) as ledger:
        assert not ledger.events()
