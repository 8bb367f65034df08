"""Severity and pure premium: what joining is worth for the mean amount of a claim.

    python bench/severity.py --json bench/results/severity.json                       # generated world
    python bench/severity.py --fremtpl2 ../shared/data --json ...                     # and the French portfolio

Gamma deviance per claim on unseen claims, for one mean for everybody, each insurer alone (same estimator, no noise),
the joint model without noise and at epsilon 4 and 1 (noise of the plan under ``honest-one/1``: more than epsilon asks
for; sums are simulated, the secure run opens the same ones), and a pooled Gamma GLM of scikit-learn that sees everything.
Amounts are capped in every sum as the specification says; deviances are of capped amounts, the level of uncapped ones is
corrected by one number per insurer and reported as observed / expected. Epsilon: per person, delta 1e-6, the whole run.

The generated world has no amounts of its own: they are drawn here, with a mean that depends on power, speeding and age
and a lognormal spread (coefficient of variation 1.3), so the carmaker knows something that the insurers do not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import Knots, Levels, SeveritySpecification, Tower
from convoy_demo.population import INSURERS, generate
from convoy_demo.specifications import INSURER_FEATURES, OEM_FEATURES
from convoy_models.features import encode_all
from convoy_models.plan import plan
from convoy_models.risk.severity import (
    SeverityModel,
    fit_severity_plain,
    gamma_deviance,
    severity_labels,
    severity_level,
)

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
EPSILONS = (4.0, 1.0)
MEAN = 2_000.0
SPREAD = float(np.sqrt(np.log1p(1.3**2)))


@dataclass(frozen=True, slots=True)
class Book:
    """Persons of all insurers. columns: by name; insurer: (N,) number; learn, linked: (N,) masks."""

    name: str
    columns: Mapping[str, npt.NDArray[Any]]
    insurer: npt.NDArray[np.int64]
    insurers: tuple[str, ...]
    learn: Bools
    linked: Bools
    specification: SeveritySpecification

    def rows(self, chosen: Bools) -> dict[str, npt.NDArray[Any]]:
        """Return some persons' columns."""
        return {name: values[chosen] for name, values in self.columns.items()}

    def party_frames(self, specification: SeveritySpecification) -> dict[str, dict[str, npt.NDArray[Any]]]:
        """Return what each party of a real federation holds (``bench/federated.py``)."""
        held = {tower.role: [feature.name for feature in tower.features] for tower in specification.towers}
        numbers, frames = np.arange(self.learn.size), {}
        for index, name in enumerate(self.insurers):
            mine = self.learn & (self.insurer == index)
            wanted = (*held["insurer"], specification.claims, specification.amount)
            frames[name] = {key: self.columns[key][mine] for key in wanted} | {"row": numbers[mine]}
        if "oem" in held:
            known = self.learn & self.linked
            frames["oem"] = {key: self.columns[key][known] for key in held["oem"]} | {"row": numbers[known]}
        return frames


def specification(epsilon: float, *, with_oem: bool, **changes: Any) -> SeveritySpecification:
    """Return the severity specification of the generated world."""
    towers = [Tower(role="insurer", features=INSURER_FEATURES, cap="2.5")]
    if with_oem:
        towers.append(Tower(role="oem", features=OEM_FEATURES, cap="1.6"))
    given: dict[str, Any] = {
        "kind": "severity-towers/1",
        "towers": tuple(towers),
        "claims": "claim_count",
        "amount": "claim_amount",
        "claimCap": 1,
        "amountCap": "5000",
        "amountUnit": "2000",
        "epsilonMicro": round(epsilon * 1e6),
        "deltaNano": 1_000,
    }
    return SeveritySpecification(**(given | changes))


def generated_book(size: int, seed: int) -> Book:
    """Return drivers of the demo's world with amounts; half of them are for the test."""
    people = generate(2 * size, seed)
    rng = np.random.default_rng([seed, 47])
    power = np.asarray(people.columns["vehicle_power"], dtype=np.float64)
    age = np.asarray(people.columns["driver_age"], dtype=np.float64)
    speeding = np.asarray(people.columns["speeding_share"], dtype=np.float64)
    mean = MEAN * np.exp(0.06 * (power - 7) + 0.25 * (age < 25) + 5.0 * (speeding - 0.08))
    amount = np.zeros(people.size)
    for k in range(int(people.claims.max())):
        one = mean * np.exp(SPREAD * rng.normal(size=people.size) - SPREAD**2 / 2)
        amount += np.where(people.claims > k, np.maximum(one, 1.0), 0.0)
    columns = {**people.columns, "claim_count": people.claims, "claim_amount": np.round(amount, 2)}
    return Book(
        "generated world",
        columns,
        people.insurer,
        INSURERS,
        np.arange(2 * size) < size,
        people.has_oem,
        specification(4.0, with_oem=True),
    )


def fremtpl2_book(folder: Path) -> Book:
    """Return freMTPL2 with amounts: insurers are the five region zones, no carmaker."""
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "fremtpl2_wuethrich.parquet")
    raw = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    zones = ("24 83 74 26 43", "82 93 94", "11 22 31 21 23", "53 52 25 54", "72 73 91 41 42")
    zone_of = {f"R{code}": index for index, codes in enumerate(zones) for code in codes.split()}

    def knots(name: str, *points: float, scale: str = "linear") -> Knots:
        return Knots.model_validate(
            {"kind": "knots", "name": name, "knots": tuple(f"{p:g}" for p in points), "scale": scale}
        )

    features = (
        knots("DrivAge", 18, 21, 25, 30, 40, 55, 70, 90),
        knots("BonusMalus", 50, 60, 75, 100, 150),
        knots("VehAge", 0, 2, 5, 10, 20),
        knots("VehPower", 4, 6, 8, 11, 15),
        knots("Density", 1, 50, 500, 5000, 27000, scale="log1p"),
        Levels(kind="levels", name="VehGas", levels=tuple(sorted(set(map(str, raw["VehGas"]))))),
        Levels(kind="levels", name="VehBrand", levels=tuple(sorted(set(map(str, raw["VehBrand"]))))),
    )
    columns = {
        f.name: raw[f.name].astype(str) if isinstance(f, Levels) else raw[f.name].astype(float) for f in features
    }
    # Claims without any amount stand in the frequency data only.
    columns["claim_count"] = np.where(raw["ClaimTotal"] > 0, raw["ClaimNb"], 0).astype(np.int64)
    columns["claim_amount"] = np.where(columns["claim_count"] > 0, raw["ClaimTotal"], 0.0).astype(float)
    spec = specification(
        4.0,
        with_oem=False,
        towers=(Tower(role="insurer", features=features, cap="2.5"),),
        amountUnit="1500",
        amountCap="3750",
    )
    size = raw["IDpol"].size
    insurer = np.array([zone_of[str(region)] for region in raw["Region"]])
    return Book(
        "freMTPL2, five zones",
        columns,
        insurer,
        tuple(f"zone-{n}" for n in range(1, 6)),
        raw["is_learn"].astype(bool),
        np.zeros(size, dtype=bool),
        spec,
    )


def capped(spec: SeveritySpecification, columns: Mapping[str, Any]) -> tuple[Floats, Floats]:
    """Return capped counts and amounts, as they enter sums."""
    labels = severity_labels(spec, columns)
    return labels.claims.astype(np.float64), labels.exposure_years * float(spec.amountUnit)


def judged(spec: SeveritySpecification, columns: Mapping[str, Any], mean: Floats, level: Floats | float) -> float:
    """Return the deviance of capped amounts."""
    claims, amount = capped(spec, columns)
    return gamma_deviance(claims, amount, mean * level)


def pooled_glm(spec: SeveritySpecification, learn: Mapping[str, Any], test: Mapping[str, Any]) -> float:
    """Return the deviance of a pooled Gamma GLM on the same columns; nothing about it is private."""
    from sklearn.linear_model import GammaRegressor

    features = [feature for tower in spec.towers for feature in tower.features]

    def design(columns: Mapping[str, Any]) -> Floats:
        return np.concatenate([block.dense()[:, 1:] for block in encode_all(features, columns)], axis=1)

    claims, amount = capped(spec, learn)
    kept = claims > 0
    glm = GammaRegressor(alpha=1e-4, max_iter=1_000)
    glm.fit(design({k: v[kept] for k, v in learn.items()}), amount[kept] / claims[kept], sample_weight=claims[kept])
    return judged(spec, test, glm.predict(design(test)), 1.0)


def one(book: Book, draws: int) -> dict[str, Any]:
    """Train and judge everything on one book; judged are persons that the joint cohort is about."""
    spec = book.specification
    with_oem = len(spec.towers) > 1
    cohort = "joint" if with_oem else "all"
    member = book.linked if with_oem else np.ones(book.learn.size, dtype=bool)
    learn, test = book.rows(book.learn & member), book.rows(~book.learn & member)
    solo = book.rows(book.learn & ~member)
    roles = {"insurer": list(book.insurers)} | ({"oem": ["oem"]} if with_oem else {})
    parts = {cohort: learn} | ({"solo": solo} if with_oem else {})
    claims, amount = capped(spec, learn)
    average = float(amount.sum() / claims.sum())
    out: dict[str, Any] = {
        "claims": int(claims.sum()),
        "test claims": int((test["claim_count"] > 0).sum()),
        "one mean": round(judged(spec, test, np.full(test["claim_count"].size, average), 1.0), 4),
    }

    def score(model: SeverityModel) -> dict[str, float]:
        mean, trained = model.mean(cohort, test), model.mean(cohort, learn)
        counted, paid = capped(spec, learn)
        level = severity_level(paid, counted, trained)
        whole = severity_level(learn["claim_amount"], learn["claim_count"].astype(float), trained)
        seen = np.where(test["claim_amount"] > 0, test["claim_count"], 0)
        return {
            "deviance": judged(spec, test, mean, level),
            "observed / expected": float(test["claim_amount"].sum() / (seen @ (mean * whole))),
        }

    for epsilon in EPSILONS:
        chosen = spec.model_copy(update={"epsilonMicro": round(epsilon * 1e6)})
        made = plan(chosen, roles)
        found = [score(fit_severity_plain(chosen, made, parts, np.random.default_rng(n))) for n in range(draws)]
        values = np.array([row["deviance"] for row in found])
        out[f"joint, epsilon {epsilon:g}"] = {
            "deviance": round(float(values.mean()), 4),
            "worst": round(float(values.max()), 4),
            "observed / expected": round(float(np.mean([row["observed / expected"] for row in found])), 3),
        }
    exact = score(fit_severity_plain(spec, plan(spec, roles), parts))
    out["joint, no privacy"] = {name: round(value, 4) for name, value in exact.items()}
    own = spec.model_copy(
        update={"towers": (spec.towers[0].model_copy(update={"cap": "30"}),), "sweeps": 8, "patterns": "joint-only"}
    )
    weights, deviances = [], []
    for index, name in enumerate(book.insurers):
        mine = book.rows(book.learn & (book.insurer == index))
        model = fit_severity_plain(own, plan(own, {"insurer": [name]}), {"all": mine})
        part = book.rows(book.learn & (book.insurer == index) & member)
        counted, paid = capped(spec, part)
        level = severity_level(paid, counted, model.mean("all", part))
        deviances.append(judged(spec, test, model.mean("all", test), level))
        weights.append(counted.sum())
    out["insurers alone"] = {
        "mean": round(float(np.average(deviances, weights=weights)), 4),
        "best": round(min(deviances), 4),
    }
    out["pooled GLM, no privacy"] = round(pooled_glm(spec, learn, test), 4)
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and write its figures."""
    parser = argparse.ArgumentParser(description="Severity: joint, alone, pooled.")
    parser.add_argument("--drivers", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=351)
    parser.add_argument("--draws", type=int, default=5, help="draws of the noise")
    parser.add_argument("--fremtpl2", type=Path, help="folder with fremtpl2_wuethrich.parquet")
    parser.add_argument("--json", type=Path, help="where the figures go")
    given = parser.parse_args(argv)
    started = time.monotonic()
    books = [generated_book(given.drivers, given.seed)]
    if given.fremtpl2 is not None:
        books.append(fremtpl2_book(given.fremtpl2))
    report: dict[str, Any] = {
        "what": "Gamma deviance per claim of capped amounts on unseen claims; lower is better; per person, delta 1e-6"
    }
    report |= {book.name: one(book, given.draws) for book in books}
    report["seconds"] = round(time.monotonic() - started, 1)
    text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(text, encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
