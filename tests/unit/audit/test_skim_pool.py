"""A pack that several processes read gets the verdict that one process gives it."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from convoy_audit import events, skim_pool
from convoy_audit.archive import verify_pack, write_pack
from convoy_audit.canonical import b64u, canonical_bytes, parse_canonical
from convoy_audit.entry import encode
from convoy_audit.keys import SignatureType, sign_raw
from convoy_audit.pack import Verdict
from convoy_audit.rehearsal import RUN, Rehearsal

STATED = 300


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small packs be read by processes too."""
    monkeypatch.setattr(skim_pool, "WORTH", 2)
    monkeypatch.setattr(skim_pool, "FIRST", 1)
    monkeypatch.setattr(skim_pool, "TASK", 1)
    skim_pool._opened.clear()


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    """Six bundles: reports of the coordinator, and statements of four parties."""
    rehearsal = Rehearsal()
    for _ in range(1000):
        rehearsal.record(events.QueryOpened(at=rehearsal.tick(), run=RUN, attempt=1, queries=("q",)))
    for number in range(STATED):
        member = rehearsal.members[number % 4]
        duty = events.DutyStated(
            at=rehearsal.tick(),
            party=member.party,
            duty=f"d{number}",
            kind="report",
            due=rehearsal.tick(),
            step="raised",
        )
        rehearsal.state(member, duty)
    return rehearsal


def said(verdict: Verdict) -> dict[str, Any]:
    return verdict.as_json()


def both(path: Path) -> Verdict:
    """Verify with one process and with two; return the verdict that both must give."""
    alone, together = verify_pack(path), verify_pack(path, jobs=2)
    assert said(together) == said(alone)
    return together


@pytest.mark.parametrize("name", ["pack", "pack.zip"])
def test_a_whole_pack_holds(rehearsal: Rehearsal, tmp_path: Path, name: str) -> None:
    """Folder and zip; the signatures of the later statements were verified by the processes."""
    path = write_pack(tmp_path / name, rehearsal.parts())
    verdict = both(path)
    assert verdict.is_verified
    assert verdict.entries == len(rehearsal.log.entries)


def renamed(rehearsal: Rehearsal, raw: bytes) -> bytes:
    """Sign a statement anew under a key id that only begins like the right one."""
    value = parse_canonical(raw)
    seed = next(member.seed for member in rehearsal.members if member.party == value["party"])
    value["keyId"] += "0"
    del value["signature"]
    payload = canonical_bytes(value)
    kind = b"application/vnd.convoy.statement.v1+json"
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    return canonical_bytes(value | {"signature": b64u(sign_raw(SignatureType.ED25519, seed, signed))})


def test_faults_are_those_that_one_process_finds(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """A signature that does not hold, a report dated back, an entry that is none - under a checkpoint that covers them."""
    entries = list(rehearsal.log.entries)
    late = events.QueryOpened(at=rehearsal.tick() - timedelta(days=1), run=RUN, attempt=1, queries=("q",))
    entries[600] = encode(late)
    entries[-1] = entries[-1].replace(b'"signature":"', b'"signature":"AAAA', 1)[:-4] + b"}"
    at = len(entries) - 40
    other = entries[at].replace(b'"kind":"report"', b'"kind":"repork"')
    assert other != entries[at]
    entries[at] = other
    entries[-9] = renamed(rehearsal, entries[-9])
    log = rehearsal.log.rewritten(entries)
    parts = replace(rehearsal.parts(), entries=entries, checkpoint=log.checkpoint(), checkpoints=[])
    verdict = both(write_pack(tmp_path / "pack", parts))
    assert [fault.index for fault in verdict.faults if fault.index is not None][:2] == [600, at]
    assert {len(entries) - 9, len(entries) - 1} <= {fault.index for fault in verdict.faults}


def test_a_bundle_that_is_missing_or_none_is_named(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """A process that meets it leaves it to the one that reports."""
    path = write_pack(tmp_path / "pack", rehearsal.parts())
    bundle = path / "tile/entries/002"
    content = bundle.read_bytes()
    bundle.write_bytes(content[:-1])
    assert any("ends within an entry" in fault.cause for fault in both(path).faults)
    bundle.unlink()
    assert any("tile/entries/002 is missing" in fault.cause for fault in both(path).faults)


def test_processes_that_die_change_nothing(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Out of memory, for example: their bundles are read again."""
    path = write_pack(tmp_path / "pack", rehearsal.parts())
    monkeypatch.setattr(skim_pool, "_task", _die)
    assert both(path).is_verified


def _die(*_arguments: object) -> None:
    os._exit(1)
