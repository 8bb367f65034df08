"""A slow link, and a cut one: the federation of ``bench/recovery.py`` with one insurer behind a network namespace of its own.

``python bench/network.py --json bench/results/network.json`` enters a user and network namespace (``unshare``, no privileges needed where
the kernel allows it), puts insurer B's node into another one, joined by a veth pair, and has runs go through

    fast       the pair as it is
    slow       20 Mbit/s each way (tbf), as an office's line
    slower     2 Mbit/s each way
    cut 10 s   the pair taken down in the middle of a run: packets vanish, nobody is told
    cut 90 s   longer than two heartbeats: the node counts as lost

Reported: how each run ended, how long it took, and for the cuts how long after the healing a fresh run started. Every run without a
cut, and the one with the short cut, must finish; the long cut must end with the party's name. The ledgers are judged as there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recovery import Kept, NotAccounted, finish, kept_federation, spent, started, verify

INSIDE = "CONVOY_BENCH_NAMESPACE"
HERE, THERE = "10.231.7.1", "10.231.7.2"
PARTY = "insurer-b"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    given = parser.parse_args(arguments)
    if INSIDE not in os.environ:
        command = ["unshare", "--map-root-user", "--net", sys.executable, *sys.argv]
        return subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    there = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
    try:
        join(there.pid)
        inside = {PARTY: ["nsenter", "--target", str(there.pid), "--net"]}
        with tempfile.TemporaryDirectory() as folder, kept_federation(Path(folder), HERE, inside) as federation:
            finish(federation, started(federation)[0])
            episodes = []
            for name, rate in (("fast", None), ("slow", 20), ("slower", 2)):
                shape(there.pid, rate)
                episodes.append(pace(federation, name, rate))
            shape(there.pid, None)
            episodes += [cut(federation, 10), cut(federation, 90)]
            verify(federation)
    finally:
        there.kill()
        there.wait()
    slowdown = {e["link"]: round(e["seconds"] / episodes[0]["seconds"], 2) for e in episodes[:3]}
    results = {"episodes": episodes, "ratioToFast": slowdown, "machine": {"cores": os.cpu_count()}}
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


def ip(*words: str) -> None:
    """Run ``ip``."""
    subprocess.run(["ip", *words], check=True)


def join(pid: int) -> None:
    """Join this namespace and that of a process by a veth pair."""
    deadline = time.monotonic() + 5
    mine = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == mine:  # until it has entered its own
        if time.monotonic() > deadline:
            raise SystemExit("no second network namespace")
        time.sleep(0.01)
    ip("link", "set", "lo", "up")
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "set", "v1", "netns", str(pid))
    ip("addr", "add", f"{HERE}/24", "dev", "v0")
    ip("link", "set", "v0", "up")
    inside = ["nsenter", "--target", str(pid), "--net", "ip"]
    for words in (
        ["addr", "add", f"{THERE}/24", "dev", "v1"],
        ["link", "set", "v1", "up"],
        ["link", "set", "lo", "up"],
    ):
        subprocess.run([*inside, *words], check=True)


def shape(pid: int, mbit: int | None) -> None:
    """Limit both directions of the pair, or lift the limit."""
    for prefix, device in (([], "v0"), (["nsenter", "--target", str(pid), "--net"], "v1")):
        subprocess.run([*prefix, "tc", "qdisc", "del", "dev", device, "root"], check=False, capture_output=True)
        if mbit is not None:
            limit = ["tbf", "rate", f"{mbit}mbit", "burst", "32k", "latency", "400ms"]
            subprocess.run([*prefix, "tc", "qdisc", "add", "dev", device, "root", *limit], check=True)


def pace(federation: Kept, name: str, mbit: int | None) -> dict[str, Any]:
    """Have one run go through the pair."""
    begun = time.monotonic()
    uid = started(federation)[0]
    finish(federation, uid)
    seconds = time.monotonic() - begun
    relayed = federation.run(uid)["progress"]["blobBytes"] / 1e6
    print(f"{name}: {seconds:.1f} s, {relayed:.1f} MB relayed", flush=True)
    return {
        "link": name,
        "mbit": mbit,
        "outcome": "finished",
        "seconds": round(seconds, 1),
        "megabytes": round(relayed, 1),
    }


def cut(federation: Kept, seconds: int) -> dict[str, Any]:
    """Take the pair down for some seconds in the middle of a run.

    Raises:
        NotAccounted: the ledgers or the run's end are not as they should be.
    """
    uid = federation.queue()
    federation.until(uid, lambda run: run["progress"].get("done", 0) * 2 >= run["progress"].get("total", 10**9))
    ip("link", "set", "v0", "down")
    begun = time.monotonic()
    healing = threading.Timer(seconds, ip, ("link", "set", "v0", "up"))
    healing.start()
    ended = federation.until(uid, lambda _: False)
    ended_s = time.monotonic() - begun
    healing.join()
    healed = time.monotonic()
    fresh = started(federation)[0]
    serving_s = time.monotonic() - healed
    finish(federation, fresh)
    for party, (used, settled) in spent(federation).items():
        if used != settled:
            raise NotAccounted(f"{party} still holds a reservation")
    if ended["state"] != "finished" and ended["party"] != f"did:web:{PARTY}.example":
        raise NotAccounted(f"the run does not name the party that was cut off: {ended}")
    told = {
        "link": f"cut {seconds} s",
        "outcome": ended["state"],
        "reason": ended["reason"],
        "namedParty": ended["party"],
    }
    told |= {"seconds": round(ended_s, 1), "servingSecondsAfterHealing": round(serving_s, 1)}
    print(told, flush=True)
    return told


if __name__ == "__main__":
    sys.exit(main())
