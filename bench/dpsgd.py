"""What a private step costs: DP-SGD as a node does it, against the same step without privacy, in one run.

    python bench/dpsgd.py --json bench/results/dpsgd.json

A step WITHOUT privacy: loss and gradient of the same network over the same rows in the same precision (float64), by
torch, summed and divided; no sampling and no masks, which a joint training without privacy would need as well. A step
WITH: secret Poisson coins for everybody, gradients clipped person by person (Opacus' norms, one pass), the sum on the
ring's grid, the node's own exact discrete Gaussian and the pairwise masks, ready to leave. Sides alternate; the figure is
the ratio of median processor times (a busy machine does not count). Small batches are shown too, where noise and masks
are a fixed cost. "two-pass" is Opacus' own ghost clipping recipe, "hooks" Opacus' per-sample gradients, for comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from convoy_models.masks import PairKeys
from convoy_models.neural.cann import ResidualNet, capped_losses
from convoy_models.neural.clipped import CHUNK, ClippedSums, Rows, Way
from convoy_models.neural.sampling import SecretCoins
from convoy_models.noise import DiscreteGaussian
from convoy_models.plan import PlannedQuery, Side
from convoy_models.sums import PartySession

TARGET = 1.5
LARGE = 65_536
PARTIES = ("did:web:a.example", "did:web:b.example", "did:web:c.example")


@dataclass(frozen=True, slots=True)
class Data:
    """Persons of one node: inputs, offsets, exposures, capped claims."""

    x: Tensor
    offset: Tensor
    years: Tensor
    claims: Tensor

    def losses(self, net: nn.Module, rows: Rows) -> Tensor:
        """Return (B,) losses of some rows."""
        at = torch.from_numpy(rows)
        return capped_losses(self.offset[at] + net(self.x[at]), self.years[at], self.claims[at], 1)


def make_data(persons: int, width: int, seed: int) -> Data:
    """Return a made-up book."""
    rng = np.random.default_rng(seed)
    return Data(
        torch.from_numpy(rng.uniform(-1, 1, (persons, width))),
        torch.from_numpy(rng.normal(-2.6, 0.4, persons)),
        torch.from_numpy(rng.uniform(0.3, 1, persons)),
        torch.from_numpy((rng.random(persons) < 0.05).astype(np.float64)),
    )


class Node:
    """One of three insurers, closing LOCAL sums of one run after the other."""

    def __init__(self, size: int, clip: float, sigma: float) -> None:
        keys = {party: X25519PrivateKey.generate() for party in PARTIES}
        public = {party: key.public_key().public_bytes_raw() for party, key in keys.items()}
        mine = PARTIES[0]
        others = {party: value for party, value in public.items() if party != mine}
        self._session = PartySession(
            "bench", 1, PairKeys(mine, keys[mine], others, "sha256:00"), noise=DiscreteGaussian()
        )
        self._size, self._clip, self._sigma = size, clip, sigma
        self._step = 0

    def close(self, total: np.ndarray) -> np.ndarray:
        """Return the sum with own noise and masks: what leaves the node."""
        self._step += 1
        query = PlannedQuery(
            id=f"all/residual-{self._step:05d}", kind="LOCAL", cohort="all", module="insurer", purpose="residual",
            sweep=1, group=self._step, columns=(0, self._size), shape=(self._size, 1), clip=self._clip,
            sigma=self._sigma, mu2=1e-3, matrix=Side("insurer", PARTIES), vectors=(), rate=0.5, lead="all/residual",
        )  # fmt: skip
        return self._session.close(query, total)


def timed(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median processor seconds of every side; sides take turns."""
    for side in sides.values():
        side()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            started = time.process_time()
            side()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def one(batch: int, width: int, units: int, rounds: int, *, with_hooks: bool) -> dict[str, Any]:
    """Time one size: expected batch, inputs, hidden units."""
    data = make_data(2 * batch, width, 1)
    everybody = np.arange(2 * batch)
    plain = ResidualNet(width, units).double()
    sums: dict[str, ClippedSums] = {}
    ways: tuple[Way, ...] = ("one-pass", "two-pass")
    for way in ways:
        sums[way] = ClippedSums(ResidualNet(width, units), 1.0, way)
    weights = sums["one-pass"].weights()
    node = Node(weights.size, 1.0, 5.0)
    coins = SecretCoins()
    chosen = np.flatnonzero(np.random.default_rng(2).random(everybody.size) < 0.5)

    def without() -> None:
        plain.zero_grad()
        for start in range(0, chosen.size, CHUNK):
            data.losses(plain, chosen[start : start + CHUNK]).sum().backward()
        _ = torch.cat([p.grad.reshape(-1) for p in plain.parameters() if p.grad is not None]).numpy() / batch

    def private(way: Way) -> Callable[[], None]:
        def step() -> None:
            sample = np.flatnonzero(coins.throw(everybody.size, 500_000))
            node.close(sums[way].sum(weights, sample, data.losses))

        return step

    def clip_only() -> None:
        sums["one-pass"].sum(weights, chosen, data.losses)

    sides: dict[str, Callable[[], Any]] = {
        "plain": without, "private": private("one-pass"), "clipping alone": clip_only, "two-pass": private("two-pass"),
    }  # fmt: skip
    if with_hooks:
        hooked = GradSampleModule(ResidualNet(width, units).double(), loss_reduction="sum")

        def hooks() -> None:
            for start in range(0, chosen.size, CHUNK):
                hooked.zero_grad()
                data.losses(hooked, chosen[start : start + CHUNK]).sum().backward()
                norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in hooked.parameters()]).norm(dim=0)
                scale = (1.0 / (norms + 1e-6)).clamp(max=1.0)
                for p in hooked.parameters():
                    torch.einsum("i,i...->...", scale, p.grad_sample)
                    p.grad_sample = None

        sides["hooks"] = hooks
    seconds = timed(sides, rounds)
    return {
        "batch": batch,
        "inputs": width,
        "hidden": units,
        "weights": int(weights.size),
        "plain ms": round(1e3 * seconds["plain"], 2),
        "private ms": round(1e3 * seconds["private"], 2),
        "ratio": round(seconds["private"] / seconds["plain"], 3),
        "ratio of clipping alone": round(seconds["clipping alone"] / seconds["plain"], 3),
        "ratio of Opacus' two passes": round(seconds["two-pass"] / seconds["plain"], 3),
        **({"ratio of Opacus' hooks": round(seconds["hooks"] / seconds["plain"], 3)} if with_hooks else {}),
    }


def noise_cost(weights: int, rounds: int) -> float:
    """Return what the exact noise of one step costs, processor microseconds per weight, whatever the batch."""
    source = DiscreteGaussian()
    seconds = timed({"noise": lambda: source.draw(5 / 2**0.5 * 2.0**20, weights)}, rounds)
    return round(1e6 * seconds["noise"] / weights, 2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its figures; exit 1 where a large batch misses the target."""
    parser = argparse.ArgumentParser(description="A private step against a step without privacy.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on both sides")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(argv)
    torch.set_num_threads(given.threads)
    rows = [
        one(1_024, 24, 16, given.rounds, with_hooks=True),
        one(16_384, 24, 16, given.rounds, with_hooks=True),
        one(LARGE, 24, 16, given.rounds, with_hooks=False),
        one(LARGE, 64, 64, max(5, given.rounds // 2), with_hooks=False),
        one(2 * LARGE, 24, 16, given.rounds, with_hooks=False),
        one(2 * LARGE, 64, 64, max(5, given.rounds // 2), with_hooks=False),
    ]
    large = [row["ratio"] for row in rows if row["batch"] >= LARGE]
    report = {
        "what": "median processor seconds of a DP-SGD step ready to leave the node, over the same step without privacy, same run",
        "target": TARGET,
        "large batches": {"from": LARGE, "worst": max(large), "median": round(statistics.median(large), 3)},
        "noise, microseconds per weight and step": {str(size): noise_cost(size, given.rounds) for size in (416, 4_224)},
        "rows": rows,
        "threads": given.threads,
        "cores": os.cpu_count(),
    }
    text = json.dumps(report, indent=1) + "\n"
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text, encoding="utf-8")
    print(text)
    return 0 if max(large) <= TARGET else 1


if __name__ == "__main__":
    raise SystemExit(main())
