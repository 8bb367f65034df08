"""A monitor that only reads: it finds what a witness finds, from a folder or over HTTP."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from convoy_audit.cli import main
from convoy_audit.errors import FormatError
from convoy_audit.merkle import Tree
from convoy_audit.policy import Policy, make_policy
from convoy_audit.rehearsal import Rehearsal
from convoy_audit.testing import HYBRID_LOG, MemoryLog, make_witness
from convoy_audit.tile_tree import TileTree
from convoy_audit.watch import Memory, fetcher, look


def publish(log: MemoryLog, folder: Path, note: bytes | None = None) -> None:
    """Write a log as static files."""
    for name, content in log.static(note).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def grown(size: int) -> MemoryLog:
    log = MemoryLog("example.com/log", HYBRID_LOG)
    log.append(*(b"entry %d" % number for number in range(size)))
    return log


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
def test_a_tree_of_tiles_proves_what_the_tree_in_memory_proves(size: int, tmp_path: Path) -> None:
    """Root, inclusion and consistency, from whole and partial tiles."""
    log = grown(size)
    publish(log, tmp_path)
    tree = TileTree(fetcher(str(tmp_path)), size)
    assert tree.root() == log.tree.root()
    for index in {0, size // 2, size - 1}:
        assert tree.inclusion_proof(index) == log.tree.inclusion_proof(index)
        assert tree.consistency_proof(index + 1) == log.tree.consistency_proof(index + 1)


def test_a_partial_tile_may_have_become_a_full_one(tmp_path: Path) -> None:
    """tlog-tiles lets a log drop partial tiles once the full one is there."""
    log = grown(600)
    publish(log, tmp_path)
    tree = TileTree(fetcher(str(tmp_path)), 300)  # tile/0/001.p/44 is not there, tile/0/001 is
    assert tree.root() == log.tree.root(300)
    with pytest.raises(FormatError, match="missing"):
        TileTree(lambda _path: None, 300).root()


def judge(
    memory: Memory | None, log: MemoryLog, note: bytes, policy: Policy | None = None, now: int = 1_700_000_001
) -> list[str]:
    return [
        alarm.code
        for alarm in look(
            memory, note, lambda size: Tree(log.tree.leaf(index) for index in range(size)), policy, now, 60
        ).alarms
    ]


def test_every_way_to_rewrite_a_log_raises_its_alarm() -> None:
    """Growth is fine; a rollback, a fork, a rewritten past and another log are not."""
    log = grown(9)
    memory = Memory(log.checkpoint(6), 1_700_000_000)
    assert judge(None, log, log.checkpoint(6)) == []
    assert judge(memory, log, log.checkpoint(6)) == []
    assert judge(memory, log, log.checkpoint()) == []
    assert judge(memory, log, log.checkpoint(5)) == ["ROLLBACK"]
    forked = log.rewritten([*log.entries[:5], b"other"])
    assert judge(memory, forked, forked.checkpoint()) == ["FORK"]
    rewritten = log.rewritten([b"other", *log.entries[1:]])
    assert judge(memory, rewritten, rewritten.checkpoint()) == ["INCONSISTENT"]
    assert judge(memory, log, MemoryLog("example.com/other").checkpoint()) == ["INCONSISTENT"]


def test_signatures_quorum_and_age_are_told_apart() -> None:
    """A wrong key stops work; a missing quorum or an old checkpoint may pass again."""
    log = grown(3)
    witness = make_witness("w", log)
    policy = make_policy(log.vkeys, {"w": [v.vkey for v in witness.verifiers]})
    note = log.checkpoint()
    cosigned = note + witness.add_checkpoint(note, 0, [], 1_700_000_000).lines.encode()
    assert judge(None, log, cosigned, policy) == []
    assert judge(None, log, note, policy) == ["QUORUM"]
    assert judge(None, log, cosigned, policy, 1_700_000_061) == ["STALE"]
    stranger = grown(3)
    assert judge(None, stranger, stranger.checkpoint(), policy) == ["SIGNATURE"]
    assert judge(Memory(note, 1_700_000_000), log, note, None, 1_700_000_061) == ["STALE"]


# The command --------------------------------------------------------------------------------------


def watch(source: object, state: Path, *more: str) -> int:
    return main(["watch", str(source), "--state", str(state), "--once", "--stale", "4000000000", *more])


def test_the_command_remembers_and_stops_on_a_fork(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 while the log grows, 1 on an alarm, and what was remembered stays."""
    log, site, state = grown(300), tmp_path / "site", tmp_path / "state"
    publish(log, site, log.checkpoint(200))
    assert watch(site, state) == 0
    assert "First look" in capsys.readouterr().out
    publish(log, site)
    assert watch(site, state, "--json") == 0
    assert json.loads(capsys.readouterr().out)["grown"] == 100
    kept = (state / "remembered").read_bytes()
    other = log.rewritten([*log.entries[:-1], b"another"])
    note = other.checkpoint()
    publish(other, site, note)
    assert watch(site, state, "--lang", "zh") == 1
    assert "ALARM FORK" in capsys.readouterr().out
    assert (state / "remembered").read_bytes() == kept
    assert (state / "refused").read_bytes() == note


def test_the_command_prints_new_entries_after_their_proof(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence each; an entry that is not under the checkpoint is an error, not a sentence."""
    told, site, state = Rehearsal(), tmp_path / "site", tmp_path / "state"
    publish(told.log, site)
    assert watch(site, state, "--entries") == 0
    out = capsys.readouterr().out
    assert out.count("entry ") == len(told.log.entries)
    assert "Run authorised" in out
    bundle = next((site / "tile" / "entries").rglob("*.p/*"))
    bundle.write_bytes(bundle.read_bytes().replace(b"BUDGET_EXHAUSTED", b"BUDGET_EXHAUSTEX"))
    assert watch(site, tmp_path / "fresh", "--entries") == 2
    assert "PROOF_WRONG" in capsys.readouterr().err


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The folder of a site, and its address."""
    site = tmp_path / "site"
    site.mkdir()
    handler = functools.partial(_Quiet, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", site
    server.shutdown()
    server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


def test_a_log_is_watched_over_http(
    served: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same over a network, with the standard library only; an unreachable log is exit 2."""
    address, site = served
    log = grown(300)
    publish(log, site, log.checkpoint(10))
    assert watch(address, tmp_path / "state") == 0
    publish(log, site)
    assert watch(f"{address}/", tmp_path / "state") == 0
    assert "(290 new)" in capsys.readouterr().out
    assert watch(f"{address}/nothing", tmp_path / "state") == 2
    assert watch("http://127.0.0.1:9", tmp_path / "state") == 2
    publish(log, site, log.checkpoint(20))
    assert watch(address, tmp_path / "state") == 1
