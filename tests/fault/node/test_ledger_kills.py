"""A node that is killed while it spends: what it acknowledged is never lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from convoy_models import accounting
from convoy_node.ledger import Ledger

KILLS = 20
_CHILD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from convoy_node.ledger import Charge, Ledger

ledger = Ledger(Path(sys.argv[1]), clock=lambda: datetime.now(UTC))
print("open", flush=True)
for attempt in range(1, 1000):
    charges = [Charge(f"q{n}", "joint", 1e-4, 100.0, 1.0) for n in range(20)]
    ledger.reserve(sys.argv[2], attempt, "risk", "asset", 2026, 1e-6, charges,
                   contract_cap_micro=10**9, asset_cap_micro=10**9)
    for charge in charges:
        ledger.spend(sys.argv[2], charge.query, attempt)
        print(f"{sys.argv[2]} {charge.query} {attempt}", flush=True)
    ledger.settle(sys.argv[2], "finished")
"""


def test_what_a_killed_node_acknowledged_is_in_the_reopened_ledger(tmp_path: Path) -> None:
    """Twenty kills at random moments; nothing is open afterwards and at most one spend is extra."""
    path = tmp_path / "ledger.db"
    Ledger.create(path)
    rng = random.Random(20_261_124)
    acknowledged: set[tuple[str, str, int]] = set()
    in_flight = 0
    for kill in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path), f"run-{kill}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines():
            run, query, attempt = line.split()
            acknowledged.add((run, query, int(attempt)))
        assert child.wait() == -signal.SIGKILL
        with Ledger(path, clock=lambda: datetime.now(UTC)) as ledger:
            spent = {(event.run, event.query, event.attempt) for event in ledger.events()}
            assert acknowledged <= spent
            in_flight = len(spent - acknowledged)
            assert in_flight <= kill + 1
            assert ledger.spent_mu2("asset") == accounting.mu2_of_units(len(spent) * 10**8)
            assert ledger.mu2("asset") == ledger.spent_mu2("asset")
    assert len(acknowledged) > KILLS
