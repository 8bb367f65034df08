"""``convoy-audit watch``: follow a log from a folder of tiles or an http(s) address and cry when it is rewritten."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from convoy_audit.policy import Policy
    from convoy_audit.watch import Look, Memory

MAX_PAUSE_S: Final = 86_400.0
_WORDS: Final = {
    "en": {
        "fine": "{size} entries ({grown} new), root {root}, consistent with what was remembered.",
        "first": "{size} entries, root {root}. First look: remembered from now on.",
        "policy": "Signatures are not verified: give --policy with the policy that you trust.",
        "stop": "Stop work on this log. Both checkpoints are kept in {folder}.",
        "entry": "entry",
    },
    "zh": {
        "fine": "{size} 条（新增 {grown} 条），根 {root}，与已记住的检查点一致。",
        "first": "{size} 条，根 {root}。首次查看：自此记住。",
        "policy": "未核验签名：请用 --policy 指定您信任的策略。",
        "stop": "请停止基于此日志的工作。两份检查点均保存在 {folder}。",
        "entry": "条目",
    },
}


def add_watch(commands: Any) -> None:
    """Add the command to the parser of ``convoy-audit``."""
    what = "follow a log and raise an alarm on fork, rollback, missing quorum or staleness"
    command: argparse.ArgumentParser = commands.add_parser("watch", help=what, description=f"{what}.".capitalize())
    command.add_argument(
        "source", metavar="SOURCE", help="folder of tiles, or http(s) address above checkpoint and tile/"
    )
    command.add_argument(
        "--state", type=Path, required=True, metavar="FOLDER", help="where the last checkpoint is remembered"
    )
    command.add_argument("--policy", type=Path, metavar="FILE", help="the policy that you trust (tlog-policy)")
    command.add_argument("--once", action="store_true", help="look once and exit")
    command.add_argument("--every", type=_pause_s, default=10.0, metavar="S", help="seconds between two looks (10)")
    command.add_argument(
        "--stale", type=int, default=60, metavar="S", help="alarm when the newest cosignature is older (60)"
    )
    command.add_argument("--entries", action="store_true", help="print each new entry, after its proof")
    command.add_argument("--json", action="store_true", help="print one line of data a look")
    command.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the text")
    command.set_defaults(act=_watch)


def _pause_s(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_PAUSE_S:
        raise argparse.ArgumentTypeError(f"{text}: seconds from above 0 to {MAX_PAUSE_S:.0f}")
    return seconds


def _watch(given: argparse.Namespace) -> int:
    from convoy_audit.errors import FormatError
    from convoy_audit.policy import Policy

    policy = None if given.policy is None else Policy.parse(given.policy.read_bytes())
    if policy is None and not given.json:
        print(_WORDS[given.lang]["policy"], file=sys.stderr)
    while True:
        try:
            code = _turn(given, policy)
        except FormatError as error:
            if given.once:
                raise
            print(f"convoy-audit: {error.code}: {error.cause}", file=sys.stderr, flush=True)
            code = 0  # out of reach: look again; staleness is told by the next checkpoint
        if given.once or code == 1:
            return code
        try:
            time.sleep(given.every)
        except KeyboardInterrupt:
            return 0


def _turn(given: argparse.Namespace, policy: Policy | None) -> int:
    """Look once; return 1 on an alarm that must stop work (with ``--once`` on any alarm)."""
    from convoy_audit.errors import FormatError
    from convoy_audit.tile_tree import TileTree
    from convoy_audit.watch import fetcher, look

    read = fetcher(given.source)
    note = read("checkpoint")
    if note is None:
        raise FormatError("there is no checkpoint at the source")
    memory = _load(given.state)
    seen = look(memory, note, lambda size: TileTree(read, size), policy, int(time.time()), given.stale)
    if given.entries and seen.memory is not None and not any(alarm.must_stop for alarm in seen.alarms):
        _entries(given, read, memory.checkpoint.size if memory else 0, seen)
    if any(alarm.must_stop for alarm in seen.alarms):
        _keep(given.state / "refused", note)
    elif seen.memory is not None:
        # If we die before this: the next look starts from the older checkpoint and proves the same growth again.
        _keep(given.state / "remembered", f"{seen.memory.seen_at_s}\n".encode() + seen.memory.note)
    _say(given, seen, memory)
    must_stop = any(alarm.must_stop for alarm in seen.alarms)
    return 1 if must_stop or (given.once and seen.alarms) else 0


def _entries(given: argparse.Namespace, read: Any, before: int, seen: Look) -> None:
    """Print the new entries; each is proven to be in the checkpoint first."""
    from convoy_audit.describe import sentence
    from convoy_audit.entry import Entry
    from convoy_audit.errors import FormatError
    from convoy_audit.merkle import leaf_hash, verify_inclusion
    from convoy_audit.tile_tree import TileTree
    from convoy_audit.tiles import WIDTH, decode_bundle, entries_path, entries_spans

    size, root = seen.checkpoint.size, seen.checkpoint.root
    tree = TileTree(read, size)
    for span in entries_spans(size):
        if (span.index + 1) * WIDTH <= before:
            continue
        data = read(entries_path(span.index, span.width)) or read(entries_path(span.index))
        if data is None:
            raise FormatError(f"{entries_path(span.index, span.width)} is missing")
        for offset, raw in enumerate(decode_bundle(data, span.width)):
            index = span.index * WIDTH + offset
            if index < before:
                continue
            verify_inclusion(leaf_hash(raw), index, size, tree.inclusion_proof(index), root)
            print(f"{_WORDS[given.lang]['entry']} {index}: {sentence(Entry(raw).content, given.lang)}")


def _say(given: argparse.Namespace, seen: Look, memory: Memory | None) -> None:
    words, checkpoint = _WORDS[given.lang], seen.checkpoint
    if given.json:
        alarms = [{"code": a.code, "cause": a.cause, "mustStop": a.must_stop} for a in seen.alarms]
        line = {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), "alarms": alarms}
        print(json.dumps({**line, "grown": seen.grown}, ensure_ascii=False), flush=True)
        return
    if not any(alarm.must_stop for alarm in seen.alarms):
        text = words["first" if memory is None else "fine"]
        print(text.format(size=checkpoint.size, grown=seen.grown, root=checkpoint.root.hex()[:16]), flush=True)
    for alarm in seen.alarms:
        print(f"ALARM {alarm.code}: {alarm.cause}", flush=True)
        if alarm.must_stop:
            print(words["stop"].format(folder=given.state), flush=True)


def _load(folder: Path) -> Memory | None:
    from convoy_audit.canonical import decimal
    from convoy_audit.errors import StoreError
    from convoy_audit.watch import Memory

    path = folder / "remembered"
    if not path.is_file():
        return None
    head, newline, note = path.read_bytes().partition(b"\n")
    if not newline or not head.isdigit():
        raise StoreError("the remembered checkpoint is damaged")
    return Memory(note, decimal(head.decode(), "the instant"))


def _keep(path: Path, data: bytes) -> None:
    from convoy_audit.witness_store import write_atomically

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(path, data)
