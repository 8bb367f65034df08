"""Severity: the mean amount of a claim, by a Gamma model with log link on the sums of the frequency model.

For a person with ``n`` claims of total amount ``S`` and a model mean ``m``, the Gamma log likelihood (weights ``n``, any
dispersion) is ``-n log m - S / m`` up to constants. With ``r = 1 / m`` that is ``n log r - r S``: a Poisson model of counts
``n`` with exposure ``S`` and rate ``r``. So everything that is proven and built for the frequency - noisy sums, bilinear
queries, ledger, posterior - trains the severity: label sums of counts, model sums of ``S * r``, factors of the insurer
times factors of the carmaker. A person without claims adds zeros; nobody learns who had a claim.

The posterior takes amounts to vary as an exponential distribution does (dispersion 1). Real claim amounts vary more, so
it believes margins a little too much; scales of features are set by the sums and make up for part of it.

    severity_labels(spec, columns) -> Labels      counts as labels, amounts in units as exposure (at a node)
    severity_fit(spec, plan)                      optimiser, same protocol as ``risk.fit.RiskFit``
    SeverityModel.mean(cohort, columns)           mean amount of a claim, in the currency of the column
    severity_level(...)                           one number by which an insurer corrects the level; stays at its node
    PurePremium(frequency, severity)              yearly rate x mean amount

What may never change for ``severity-towers/1``: array names as in ``risk.model``; values are log factors of the AMOUNT.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from convoy_contracts.specification import SeveritySpecification
from convoy_models.features import numeric
from convoy_models.fixedpoint import Floats
from convoy_models.plan import Plan
from convoy_models.risk.fit import Ask, Noise, RiskFit, Sums
from convoy_models.risk.model import Factor, RiskModel
from convoy_models.risk.towers import Labels, LabelsRefused

SeveritySteps = Generator[list[Ask], Sums, "SeverityModel"]


def severity_labels(spec: SeveritySpecification, columns: Mapping[str, Any]) -> Labels:
    """Return capped counts, and capped amounts in units as exposure; both 0 for a person without claims.

    Raises:
        LabelsRefused: a column is absent, a count negative or fractional, an amount negative, or an amount without a claim.
        ColumnRefused: values that are not finite numbers.
    """
    faults = [f"column {name!r} is absent" for name in (spec.claims, spec.amount) if name not in columns]
    if faults:
        raise LabelsRefused("; ".join(faults))
    claims, amount = (numeric(name, columns[name]) for name in (spec.claims, spec.amount))
    bad = int(np.count_nonzero((claims < 0) | (claims != np.rint(claims))))
    if bad:
        faults.append(f"column {spec.claims!r} has {bad} negative or fractional claim count(s)")
    if claims.size != amount.size:
        faults.append("claims and amounts have different lengths")
    elif np.any(amount < 0) or np.any((amount > 0) & (claims == 0)):
        count = int(np.count_nonzero((amount < 0) | ((amount > 0) & (claims == 0))))
        faults.append(f"column {spec.amount!r} has {count} negative amount(s) or amount(s) without a claim")
    if faults:
        raise LabelsRefused(
            "; ".join(faults), fix="Correct counts and amounts at their source, or leave these persons out."
        )
    # A claim without payment says nothing about the amount of a claim that is paid.
    paid = np.where(amount > 0, claims, 0.0)
    counted = np.minimum(paid, spec.claimCap)
    mean = np.minimum(amount / np.maximum(paid, 1.0), float(spec.amountCap)) / float(spec.amountUnit)
    return Labels(counted.astype(np.int64), counted * mean)


def severity_fit(spec: SeveritySpecification, plan: Plan, noise: Noise = "planned") -> SeverityFit:
    """Return the optimiser."""
    return SeverityFit(spec, plan, noise)


class SeverityFit:
    """One fit; use it once. Arguments as for ``RiskFit``."""

    def __init__(self, spec: SeveritySpecification, plan: Plan, noise: Noise = "planned") -> None:
        self._spec = spec
        self._fit = RiskFit(spec.as_frequency(), plan, noise)

    def steps(self) -> SeveritySteps:
        """Ask batch by batch, be sent the opened sums, return the model.

        Raises:
            FitRefused: a sum is missing, of wrong size or not finite.
        """
        inverse = yield from self._fit.steps()
        return SeverityModel(self._spec, inverse)


@dataclass(frozen=True, slots=True)
class SeverityModel:
    """inverse: the model of claims per unit of amount, whose rate is one over the mean amount."""

    specification: SeveritySpecification
    inverse: RiskModel

    def mean(self, cohort: str, columns: Mapping[str, Any]) -> Floats:
        """Return the mean amount of a claim, (N,), of persons with these columns.

        Raises:
            ModelMalformed: no such cohort.
            ColumnRefused: bad columns.
        """
        return np.asarray(float(self.specification.amountUnit) / self.inverse.rate(cohort, columns), dtype=np.float64)

    def table(self) -> tuple[Factor, ...]:
        """Return the whole model as factors of the mean amount."""
        return tuple(
            Factor(row.cohort, row.tower, row.feature, row.point, 1.0 / row.factor) for row in self.inverse.table()
        )

    def to_arrays(self) -> dict[str, Floats]:
        """Return the model as named float64 arrays, for safetensors: log factors of the amount."""
        unit = float(np.log(float(self.specification.amountUnit)))
        return {
            name: (unit - values if name.endswith("/level") else 0.0 - values)
            for name, values in self.inverse.to_arrays().items()
        }

    @classmethod
    def from_arrays(cls, specification: SeveritySpecification, arrays: Mapping[str, Floats]) -> SeverityModel:
        """Rebuild a model from its specification and arrays.

        Raises:
            ModelMalformed: an array is missing, unknown, of wrong shape or not finite.
        """
        unit = float(np.log(float(specification.amountUnit)))
        turned = {
            name: (unit - np.asarray(values) if name.endswith("/level") else 0.0 - np.asarray(values))
            for name, values in arrays.items()
        }
        return cls(specification, RiskModel.from_arrays(specification.as_frequency(), turned))


def fit_severity_plain(
    spec: SeveritySpecification,
    made: Plan,
    cohorts: Mapping[str, Mapping[str, Any]],
    noise: np.random.Generator | None = None,
    believed: Noise | None = None,
) -> SeverityModel:
    """Run the optimiser on plaintext, for tuning, for an insurer alone and to check the secure run; gives no privacy.

    Args:
        spec: of the run.
        made: its plan.
        cohorts: columns of all persons by cohort of the plan.
        noise, believed: as for ``simulate.fit_plain``.
    """
    from convoy_models.risk.towers import Design
    from convoy_models.simulate import PlainCohort, fit_plain

    form = spec.as_frequency()
    parts = {}
    for name, columns in cohorts.items():
        towers = [t for t in form.towers if t.role == "insurer" or name != "solo"]
        designs: dict[str, Design] = {tower.role: Design.build(tower, columns) for tower in towers}
        parts[name] = PlainCohort(designs, severity_labels(spec, columns))
    return SeverityModel(spec, fit_plain(form, made, parts, noise, believed))


def severity_level(amount: Floats, claims: Floats, mean: Floats, credibility_claims: float = 100.0) -> float:
    """Return the factor by which an insurer corrects the level of amounts on its own claims; it stays with the insurer.

    Amounts are capped in training, so the joint level is too low by what lies above the cap; one number from the
    insurer's own book, uncapped, repairs that.

    Args:
        amount: (N,) uncapped total amounts of its training customers.
        claims: (N,) their uncapped counts.
        mean: (N,) the model's mean amounts for them.
        credibility_claims: claims at which own experience and the joint level weigh the same.
    """
    paid = np.where(amount > 0, claims, 0.0)
    expected = float(paid @ mean)
    prior = credibility_claims * (expected / max(float(paid.sum()), 1.0) if expected > 0 else 1.0)
    return (float(amount.sum()) + prior) / (expected + prior)


def gamma_deviance(claims: Floats, amount: Floats, mean: Floats) -> float:
    """Return the mean Gamma deviance per claim, weighted by claims; persons without paid claims do not count.

    ``2 sum n (y / m - 1 - log(y / m)) / sum n`` with ``y = amount / n``.
    """
    kept = (claims > 0) & (amount > 0)
    count, ratio = claims[kept], amount[kept] / claims[kept] / mean[kept]
    return float(2.0 * np.sum(count * (ratio - 1.0 - np.log(ratio))) / count.sum())


@dataclass(frozen=True, slots=True)
class PurePremium:
    """Frequency times severity: the expected yearly cost of a person's claims, factor by factor."""

    frequency: RiskModel
    severity: SeverityModel

    def premium(self, cohort: str, columns: Mapping[str, Any]) -> Floats:
        """Return the yearly pure premium, (N,), in the currency of the amounts.

        Raises:
            ModelMalformed: a model without that cohort.
            ColumnRefused: bad columns.
        """
        return np.asarray(self.frequency.rate(cohort, columns) * self.severity.mean(cohort, columns), dtype=np.float64)

    def table(self) -> tuple[Factor, ...]:
        """Return factors of the premium where both models have the same point; the product of both, else the one there is.

        Points of the two models need not be the same: a feature with other knots stands twice, under ``frequency:`` and
        ``severity:``.
        """
        first, second = _by_feature(self.frequency.table()), _by_feature(self.severity.table())
        out: list[Factor] = []
        for key, rows in first.items():
            others = second.pop(key, [])
            if [row.point for row in rows] == [row.point for row in others]:
                out += [Factor(*key, a.point, a.factor * b.factor) for a, b in zip(rows, others, strict=True)]
            else:
                out += [Factor(key[0], key[1], f"frequency:{key[2]}", row.point, row.factor) for row in rows]
                out += [Factor(key[0], key[1], f"severity:{key[2]}", row.point, row.factor) for row in others]
        for key, rows in second.items():
            out += [Factor(key[0], key[1], f"severity:{key[2]}", row.point, row.factor) for row in rows]
        return tuple(out)


def _by_feature(rows: tuple[Factor, ...]) -> dict[tuple[str, str, str], list[Factor]]:
    out: dict[tuple[str, str, str], list[Factor]] = {}
    for row in rows:
        out.setdefault((row.cohort, row.tower, row.feature), []).append(row)
    return out
