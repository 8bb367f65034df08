"""Questions to the trail: by contract, party, run, model, time and reason; use by quarter; samples."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from convoy_audit import events
from convoy_audit.canonical import digest
from convoy_audit.cli import main
from convoy_audit.entry import encode
from convoy_audit.errors import FormatError
from convoy_audit.query import Filter, quarter_of, sample, use_by_quarter
from convoy_audit.rehearsal import RUN, START, Rehearsal

TOLD = Rehearsal()
OEM = TOLD.members[0].party
MODEL = digest(TOLD.manifest)
NO_DIGEST = digest(b"")


def kinds(wanted: Filter) -> list[str]:
    return [found.event.TYPE.split(":", 1)[1] for found in wanted.select(TOLD.log.entries)]


def test_no_condition_finds_everything_in_order() -> None:
    """Indices are those of the log."""
    found = list(Filter().select(TOLD.log.entries))
    assert [f.index for f in found] == list(range(len(TOLD.log.entries)))


def test_a_contract_is_found_by_uid_digest_or_the_beginning_of_its_digest() -> None:
    """Everything but the four enrolments belongs to the one contract."""
    whole = kinds(Filter(contract="contract-1"))
    assert len(whole) == len(TOLD.log.entries) - 4
    assert kinds(Filter(contract=TOLD.contract_digest)) == whole == kinds(Filter(contract=TOLD.contract_digest[7:19]))
    assert kinds(Filter(contract="contract-2")) == [] == kinds(Filter(contract=TOLD.contract_digest[7:12]))


def test_a_run_a_model_and_a_reason_are_found() -> None:
    """Release and finish carry the model; the denial carries its reason."""
    assert kinds(Filter(model=MODEL)) == ["release:published", "run:finished"] == kinds(Filter(model=RUN))
    assert kinds(Filter(reason="BUDGET_EXHAUSTED")) == ["run:decided"]
    assert kinds(Filter(run="run-2")) == ["run:decided"]
    assert kinds(Filter(run=RUN, kind="node:ledger:")) == ["ledger:stated"] * 3


def test_a_party_is_found_wherever_it_is_named() -> None:
    """As author, requester, provider or party of a contract."""
    found = kinds(Filter(party=OEM))
    assert found == [
        "party:enrolled",
        "contract:offered",
        "contract:signed",
        "run:authorised",
        "run:decided",
        "ledger:stated",
        "run:decided",
    ]


def test_since_is_inclusive_and_until_is_not() -> None:
    """Two halves are the whole."""
    middle = START + timedelta(seconds=9)
    first, second = Filter(until=middle), Filter(since=middle)
    assert len(kinds(first)) == 8
    assert len(kinds(first)) + len(kinds(second)) == len(TOLD.log.entries)
    with pytest.raises(FormatError):
        Filter(since=datetime(2026, 1, 1))


def test_use_is_counted_by_contract_quarter_and_party() -> None:
    """Runs, decisions, releases and what the party's own ledger says."""
    rows = {row.party: row for row in use_by_quarter(TOLD.log.entries)}
    row = rows[OEM]
    assert (row.uid, row.quarter, row.requesters, row.purposes) == (
        "contract-1",
        "2026-Q4",
        {OEM},
        {"convoy:riskModel"},
    )
    assert (row.runs, row.allowed, row.denied, row.released) == ({RUN, "run-2"}, 1, 1, {RUN})
    assert row.spent_micro == {"asset-1": 2_900_000}
    assert rows[TOLD.members[-1].party].spent_micro == {}


def test_a_settlement_replaces_what_was_stated_before_and_quarters_are_apart() -> None:
    """Spending is counted once a run; a run of January is not one of December."""
    told = Rehearsal()
    member, contract = told.members[0], told.contract_digest
    for day, run, spent in (
        (datetime(2027, 1, 2, tzinfo=UTC), "run-3", 700_000),
        (datetime(2027, 1, 3, tzinfo=UTC), "run-4", 5),
    ):
        stated = events.LedgerStated(
            at=day, party=member.party, run=run, contract=contract, step="spent",
            epsilon_micro={"asset-1": 900_000}, total_micro={"asset-1": 3_800_000},
        )  # fmt: skip
        told.state(member, stated)
        settled = events.RunSettled(
            at=day + timedelta(hours=1), party=member.party, run=run, contract=contract, outcome="finished",
            epsilon_micro={"asset-1": spent}, total_micro={"asset-1": 3_600_000},
        )  # fmt: skip
        told.state(member, settled)
    rows = {(row.quarter, row.party): row.spent_micro for row in use_by_quarter(told.log.entries)}
    assert rows["2026-Q4", member.party] == {"asset-1": 2_900_000}
    assert rows["2027-Q1", member.party] == {"asset-1": 700_005}


def test_runs_of_a_quarter_are_composed_as_gaussian_mechanisms_where_their_delta_is_known() -> None:
    """Two authorised runs of epsilon 4 are 5.94, as the ledger says; without a delta they are added."""
    told = Rehearsal()
    member, contract = told.members[0], told.contract_digest
    for run in ("run-5", "run-6"):
        told.log.append(encode(events.RunAuthorised(
            at=datetime(2027, 4, 1, tzinfo=UTC), run=run, contract=contract, scope=NO_DIGEST, algorithm=NO_DIGEST,
            plan=NO_DIGEST, round=1, requester=member.party, purpose="convoy:riskModel", providers=(member.party,),
            epsilon_micro={"asset-1": 4_000_000}, delta_nano={"asset-1": 1000},
        )))  # fmt: skip
        told.state(member, events.RunSettled(
            at=datetime(2027, 4, 2, tzinfo=UTC), party=member.party, run=run, contract=contract, outcome="finished",
            epsilon_micro={"asset-1": 3_999_996, "asset-2": 4_000_000}, total_micro={"asset-1": 8_000_000},
        ))  # fmt: skip
    rows = {(row.quarter, row.party): row.spent_micro for row in use_by_quarter(told.log.entries)}
    spent = rows["2027-Q2", member.party]
    assert 5_934_193 <= spent["asset-1"] <= 5_934_194
    assert spent["asset-2"] == 8_000_000


@pytest.mark.parametrize("quarter", ["q4", "2026-Q5", "2026-4", "4"])
def test_a_quarter_that_is_none_is_refused_not_answered_with_nothing(quarter: str) -> None:
    """An empty report would read as: nobody used anything."""
    with pytest.raises(SystemExit) as ended:
        main(["report", "use", "pack.zip", "--quarter", quarter])
    assert ended.value.code == 2


def test_a_sample_is_the_same_for_the_same_seed_and_covers_the_log() -> None:
    """Published algorithm, so a reviewer can repeat it without this program."""
    import hashlib

    assert sample(1000, 3, "s") == sample(1000, 3, "s") != sample(1000, 3, "t")
    first = int.from_bytes(hashlib.sha256(b"convoy-audit sample s 0").digest()[:16], "big") % 1000
    assert sample(1000, 1, "s") == [first]
    assert sample(7, 7, "x") == list(range(7))
    assert sample(0, 0, "x") == []
    for count in (-1, 8):
        with pytest.raises(FormatError):
            sample(7, count, "x")


@pytest.mark.parametrize(("month", "quarter"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (9, 3), (10, 4), (12, 4)])
def test_quarters_are_those_of_the_calendar(month: int, quarter: int) -> None:
    """Three months each."""
    assert quarter_of(datetime(2026, month, 1, tzinfo=UTC)) == f"2026-Q{quarter}"
