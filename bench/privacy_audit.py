"""Attack the real pipeline at epsilon 4, with and without planted defects, and write down what was proven.

``python bench/privacy_audit.py --json bench/results/privacy-audit.json``: 200 seeds without a defect and 50 with each of three
(noise at 0.8, one of two unknown noise shares missing, clip missing), the two-sample GDP audit; the one-run audit on 50; sums over two
parties; membership inference on the plan of a joint model. ``--full`` draws all noise without a defect from the production sampler
(the short form uses it in every tenth seed), and has ten times as many seeds over two parties. tests/privacy runs the same functions.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from convoy_demo.specifications import risk_specification
from convoy_models.canaries import attack_local, attack_pair
from convoy_models.membership import attack as attack_membership
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.privacy_audit import gdp_bound, one_run_bound
from convoy_models.testing import NoNoise, SeededNoise, new_keys

NODES: Final = ("insurer-a", "insurer-b", "insurer-c")
CLAIM: Final = {"epsilon": 4.0, "delta": 1e-6}
CANARIES: Final = 8000
KEYS: Final = new_keys([*NODES, "oem", "trustee"])


def noisy(seed: int, factor: float, real: bool) -> dict[str, NoiseSource]:
    """Return every node's noise: the production sampler, or a repeatable one, perhaps too weak."""
    if real:
        return {node: DiscreteGaussian() for node in NODES}
    return {node: SeededNoise(1000 * seed + place, factor) for place, node in enumerate(NODES)}


def proven(sources: Mapping[str, NoiseSource], seed: int, **planted: Any) -> float:
    """Return what the two-sample audit proves."""
    return gdp_bound(*attack_local(sources, KEYS, seed, canaries=CANARIES, **CLAIM, **planted), CLAIM["delta"])


def summary(found: Sequence[float]) -> dict[str, Any]:
    """Return how many of the bounds are alarms, and their range."""
    values = np.array(found)
    alarms = int((values > CLAIM["epsilon"]).sum())
    return {
        "seeds": len(values),
        "alarms": alarms,
        "lowest": round(float(values.min()), 3),
        "median": round(float(np.median(values)), 3),
        "highest": round(float(values.max()), 3),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit; exit code 1 where a defect was missed or a correct pipeline blamed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--json", type=Path, default=Path("bench/results/privacy-audit.json"), help="where the results go"
    )
    parser.add_argument("--full", action="store_true", help="the production sampler in every seed without a defect")
    given = parser.parse_args(arguments)
    started = time.monotonic()
    correct = [
        proven(noisy(seed, 1.0, given.full or seed % 10 == 0), seed, size=4.0 if seed % 2 else 1.0)
        for seed in range(200)
    ]
    weak = [proven(noisy(seed, 0.8, False), seed) for seed in range(50)]
    missing = [proven({**noisy(seed, 1.0, False), NODES[1]: NoNoise()}, seed) for seed in range(50)]
    unclipped = [proven(noisy(seed, 1.0, False), seed, size=2.0, clip=False) for seed in range(50)]
    single = {
        name: [
            one_run_bound(
                *attack_local(noisy(seed, factor, False), KEYS, seed, canaries=CANARIES, **CLAIM),
                CLAIM["delta"],
                guesses=guesses,
            )
            for seed in range(50)
        ]
        for name, factor, guesses in (("none", 1.0, None), ("noise x0.25", 0.25, CANARIES // 5))
    }
    pairs = {
        name: [
            gdp_bound(
                *attack_pair(
                    {p: SeededNoise(100 * seed + k, factor) for k, p in enumerate(("oem", NODES[0]))},
                    KEYS, seed, canaries=3000, **CLAIM,
                ),
                CLAIM["delta"],
                confidence=0.999,
            )
            for seed in range(20 if given.full else 2)
        ]
        for name, factor in (("none", 1.0), ("noise x0.8", 0.8))
    }  # fmt: skip
    specification = risk_specification().model_copy(update={"evaluation": None, "patterns": "joint-only"})
    told = attack_membership(
        specification, {"oem": ["oem"], "insurer": list(NODES)}, np.random.default_rng(1),
        attacked=1200 if given.full else 320, shadows=24,
    )  # fmt: skip
    results = {
        "claim": CLAIM,
        "canaries": CANARIES,
        "twoSample": {
            "none": summary(correct),
            "noise x0.8": summary(weak),
            "one share missing": summary(missing),
            "clip missing": summary(unclipped),
        },
        "oneRun": {name: summary(found) for name, found in single.items()},
        "twoParties": {name: summary(found) for name, found in pairs.items()},
        "membership": {
            "alarm": told.is_alarm, "advantage": round(told.advantage, 3), "proven": round(told.proven, 3),
            "allowed": round(told.allowed, 3), "auc": round(told.auc, 3), "attacked": told.persons,
        },
        "productionSampler": "every seed without a defect" if given.full else "every tenth seed without a defect",
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    quiet = [results["twoSample"]["none"], results["oneRun"]["none"], results["twoParties"]["none"]]  # type: ignore[index]
    loud = [found for name, found in results["twoSample"].items() if name != "none"]  # type: ignore[attr-defined]
    is_right = (
        not told.is_alarm and all(r["alarms"] == 0 for r in quiet) and all(r["alarms"] == r["seeds"] for r in loud)
    )
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
