"""How long a decision takes: four parties, phase authorise, warm and cold, beside stock libraries; and how long the command takes to start.

    python bench/decide.py [--json bench/results/decide.json] [--repeat 2000]

*Warm*: contract and signatures have been seen before, the request has not. *Cold*: nothing has been seen (the contract is
parsed, four Ed25519 signatures are checked); the modules are loaded. Goals: p50 warm <= 0.5 ms, cold <= 4 ms, start <= 0.5 s.

Beside it, in the same loop and on the same document: what a partner would write with stock libraries before a single rule is
judged - *schema*: ``json.loads`` and ``jsonschema`` against the contract's own JSON schema; *signatures*: the four detached JWS
with ``joserfc``. Neither refuses duplicate keys, fractions or text that is not NFC, and neither decides anything.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from joserfc import jws as stock_jws
from joserfc.jwk import OKPKey
from jsonschema import Draft202012Validator

from convoy_contracts import document, signatures
from convoy_contracts.decide import decide, decision
from convoy_contracts.document import Contract
from convoy_contracts.signatures import payload
from convoy_contracts.testing import example_world

GOALS_MS = {"warm": 0.5, "cold": 4.0, "start": 500.0}


def forget() -> None:
    """Empty every cache of the engine."""
    document.forget()
    decision.forget()
    signatures.forget()


def stock_schema(text: str) -> Callable[[], None]:
    """Return the check of a document's shape with ``jsonschema``."""
    schema = json.dumps(Contract.model_json_schema(by_alias=True)).replace("\\\\z", "$")  # Python's spelling of the end
    validator = Draft202012Validator(json.loads(schema))

    def check() -> None:
        validator.validate(json.loads(text))

    return check


def stock_signatures(world: dict[str, Any]) -> Callable[[], None]:
    """Return the check of every signature with ``joserfc``; keys are imported beforehand, payloads are rebuilt each time."""
    contract = Contract.parse(world["contract_text"])
    keys = {
        kid: OKPKey.import_key({name: key[name] for name in ("kty", "crv", "x")}) for kid, key in world["keys"].items()
    }

    def check() -> None:
        payload.cache_clear()
        for entry in world["signatures"]:
            body = payload(
                party=entry["party"], sig_t=entry["sigT"], uid=contract.uid, version=contract.version, digest=contract.digest
            )  # fmt: skip
            found = stock_jws.deserialize_compact(
                entry["jws"], keys[entry["kid"]], algorithms=["Ed25519"], payload=body
            )
            if found.headers()["kid"] != entry["kid"]:
                raise SystemExit("another kid")

    return check


def milliseconds(act: Callable[[], object]) -> float:
    """Return how long one call takes."""
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1e3


def measure(repeat: int) -> dict[str, list[float]]:
    """Return milliseconds per call of each side, one after the other in one loop, a fresh request each time."""
    world = example_world()
    sides = {"schema": stock_schema(world["contract_text"]), "signatures": stock_signatures(world)}
    taken: dict[str, list[float]] = {name: [] for name in ("warm", "cold", *sides)}

    def allowed() -> None:
        made = decide(world)
        if not made.allow:
            raise SystemExit(f"the example is refused: {made.reasons}")

    for n in range(repeat):
        world["request"]["nonce"] = f"n{n + 2}"
        taken["warm"].append(milliseconds(allowed))
        if n % 10 == 0:
            forget()
            taken["cold"].append(milliseconds(allowed))
            for name, side in sides.items():
                taken[name].append(milliseconds(side))
    return {name: values[2:] for name, values in taken.items()}


def start_ms(repeat: int = 5) -> list[float]:
    """Return milliseconds that ``convoy-contracts --help`` takes."""
    command = [sys.executable, "-m", "convoy_contracts.cli", "--help"]
    return [milliseconds(lambda: subprocess.run(command, check=True, capture_output=True)) for _ in range(repeat)]


def summary(taken: list[float]) -> dict[str, float]:
    """Return p50 and p99 in milliseconds."""
    ordered = sorted(taken)
    return {"p50_ms": round(statistics.median(ordered), 3), "p99_ms": round(ordered[int(len(ordered) * 0.99)], 3)}


def main() -> int:
    """Measure, print, write; goals that this machine misses are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("bench/results/decide.json"))
    parser.add_argument("--repeat", type=int, default=2000)
    given = parser.parse_args()
    results = {name: summary(taken) for name, taken in measure(given.repeat).items()} | {"start": summary(start_ms())}
    missed = [name for name, goal in GOALS_MS.items() if results[name]["p50_ms"] > goal]
    stock = results["schema"]["p50_ms"] + results["signatures"]["p50_ms"]
    report = {
        "command": "python bench/decide.py",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "parties": len(example_world()["keys"]),
        "rivals": {name: version(name) for name in ("jsonschema", "joserfc")},
        "goals_ms": GOALS_MS,
        "results": results,
        "cold_over_stock": round(results["cold"]["p50_ms"] / stock, 2),
        "warm_over_stock": round(results["warm"]["p50_ms"] / stock, 3),
        "missed": missed,
    }
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    for name, figures in results.items():
        goal = f"   goal {GOALS_MS[name]} ms" if name in GOALS_MS else "   stock library"
        print(f"{name:10}  p50 {figures['p50_ms']:8.3f} ms   p99 {figures['p99_ms']:8.3f} ms{goal}")
    print(f"a whole cold decision takes {report['cold_over_stock']} times what schema and signatures take alone")
    print(f"goals missed on this machine: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
