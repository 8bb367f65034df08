"""What a joint model is made of, as partners agree it: the optional ``specification`` of an algorithm.

A specification pins everything that decides privacy or price: features with public bounds and knots, caps, the
number of sweeps, the noise rule, epsilon and delta. It is part of the contract document, so it is signed, and the
``digest`` of its algorithm entry is the digest of its canonical bytes. Values are integers or decimal strings, never
floats, because RFC 8785 bytes must not depend on a float printer. ``convoy_models.plan`` turns a specification into
the exact list of noisy sums that a run may ask; a node answers nothing that is not on that list.

What may never change: the meaning of a ``kind`` (``risk-towers/1``); a new meaning gets a new number.
"""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

DecimalString = Annotated[str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$")]
"""A number written as a decimal string; ``Decimal(x)`` reads it exactly."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128)]
NOISE_RULE: Literal["honest-one/1"] = "honest-one/1"
"""One party sigma^2; each of K >= 2 parties of a side sigma^2 / (K - 1): what remains without any one share is >= sigma^2."""


Alignment = Literal["padded"]
"""How rows of two holders are matched, where not by the persons whom both list: *padded* - the OEM's whole list makes the rows and
the insurers put zeros where they know nobody, so the OEM does not learn who insures whom. About K times the bytes for K insurers;
the sums are the same. Only for risk models: a recommendation's profile sums are the OEM's own, so it has to know the joint persons."""


Backend = Literal["ckks"]
"""How sums over two holders are made, where not with the trustee's correlated randomness: *ckks* - under homomorphic encryption; the
party that holds the vector of a sum holds the secret key (``convoy_models.sums.ckks``). No trustee is needed, at some hundred
times the computing."""


class Closed(BaseModel):
    """A frozen value that refuses unknown members."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Knots(Closed):
    """A numeric feature as hat functions on public knots; values are clipped to the outer knots."""

    kind: Literal["knots"]
    name: Name
    knots: tuple[DecimalString, ...] = Field(min_length=2, max_length=64)
    scale: Literal["linear", "log1p"] = "linear"

    @model_validator(mode="after")
    def _knots_increase(self) -> Knots:
        values = [Decimal(k) for k in self.knots]
        if any(b <= a for a, b in pairwise(values)):
            raise ValueError(f"knots of {self.name!r} must be strictly increasing")
        if self.scale == "log1p" and values[0] < 0:
            raise ValueError(f"knots of {self.name!r} must be >= 0 for scale log1p")
        return self

    @property
    def width(self) -> int:
        """Number of columns of the design block."""
        return len(self.knots)


class Levels(Closed):
    """A categorical feature as one-hot columns; a value outside ``levels`` is refused, or counted as ``other``."""

    kind: Literal["levels"]
    name: Name
    levels: tuple[Name, ...] = Field(min_length=2, max_length=256)
    other: Name | None = None

    @model_validator(mode="after")
    def _levels_are_distinct(self) -> Levels:
        if len(set(self.levels)) != len(self.levels):
            raise ValueError(f"levels of {self.name!r} repeat")
        if self.other is not None and self.other not in self.levels:
            raise ValueError(f"'other' of {self.name!r} must be one of its levels")
        return self

    @property
    def width(self) -> int:
        """Number of columns of the design block."""
        return len(self.levels)


Feature = Annotated[Knots | Levels, Field(discriminator="kind")]


class Tower(Closed):
    """One party kind's factor of the price: ``exp(sum of block scores)``, at most ``cap`` during training.

    For the insurer tower the factor includes the exposure in years.
    """

    role: Literal["insurer", "oem"]
    features: tuple[Feature, ...] = Field(min_length=1, max_length=64)
    groups: tuple[tuple[Name, ...], ...] | None = None
    cap: DecimalString

    @model_validator(mode="after")
    def _groups_cover_features(self) -> Tower:
        names = [f.name for f in self.features]
        if len(set(names)) != len(names):
            raise ValueError(f"feature names of tower {self.role!r} repeat")
        if self.groups is not None and sorted(n for g in self.groups for n in g) != sorted(names):
            raise ValueError(f"groups of tower {self.role!r} must name each feature exactly once")
        return self


class Evaluation(Closed):
    """Hold-out of a joint run and the gate before its release (``convoy_models.holdout``, ``gates``).

    ``holdoutMilli``: share of the joint cohort that is never trained on. ``shareMilli``: share of the run's mu^2 that its
    evaluation costs. ``confidenceMilli``: how sure "better than alone" must be. ``audit``: insurer feature whose levels are
    reported as observed / expected.
    """

    holdoutMilli: int = Field(ge=20, le=500)
    shareMilli: int = Field(ge=10, le=500)
    confidenceMilli: int = Field(default=800, ge=500, le=999)
    audit: Name


class RowAudit(Closed):
    """Commit and audit against boosted rows (``convoy_models.sums.row_audit``): the trustee sees some rows and signed block sums.

    ``rowsMilli``: of a thousand shared rows of a pair how many are opened to the trustee, without a name. ``blockRows``: rows in a
    block whose signed sum it sees; a row boosted beyond about twice ``blockRows`` caps is always noticed. Parties that agree this
    name the trustee as a recipient for that purpose, and notices to persons say so.
    """

    rowsMilli: int = Field(ge=1, le=1000)
    blockRows: int = Field(default=20, ge=5, le=1000)


class RiskSpecification(Closed):
    """Poisson frequency with log link and one additive tower per party kind (DESIGN §3).

    ``cohortFloor``: persons in the joint cohort below which nobody trains; without it, what epsilon and the number of terms ask
    for (``convoy_models.gates.floor_of``).
    """

    kind: Literal["risk-towers/1"]
    towers: tuple[Tower, ...] = Field(min_length=1, max_length=2)
    claims: Name
    exposure: Name
    claimCap: int = Field(ge=1, le=20)
    priorRate: DecimalString
    priorScale: DecimalString
    smoothness: DecimalString
    sweeps: int = Field(ge=1, le=50)
    labelShareMilli: int = Field(ge=1, le=999)
    patterns: Literal["own", "joint-only"] = "own"
    soloSweeps: int = Field(default=3, ge=1, le=50)
    epsilonMicro: int = Field(ge=1)
    deltaNano: int = Field(ge=1)
    noiseRule: Literal["honest-one/1"] = NOISE_RULE
    cohortFloor: int | None = Field(default=None, ge=1)
    evaluation: Evaluation | None = None
    alignment: Alignment | None = None
    rowAudit: RowAudit | None = None
    backend: Backend | None = None

    @model_validator(mode="after")
    def _audit_needs_the_trustee(self) -> RiskSpecification:
        if self.rowAudit is not None and self.backend is not None:
            raise ValueError(
                "rowAudit works on the trustee's sums; a specification with another backend cannot ask for it"
            )
        return self

    @model_validator(mode="after")
    def _audited_feature_exists(self) -> RiskSpecification:
        if self.evaluation is not None:
            towers = {tower.role: tower for tower in self.towers}
            names = [feature.name for feature in towers["insurer"].features] if "insurer" in towers else []
            if "oem" not in towers or self.evaluation.audit not in names:
                raise ValueError("an evaluation needs an OEM tower, and 'audit' must be a feature of the insurer tower")
        return self


class SeveritySpecification(Closed):
    """Gamma severity with log link and additive towers: the mean amount of a claim, on the same sums as the frequency.

    A Gamma model of mean amounts weighted by claim counts has the estimating equations of a Poisson model of counts whose
    exposure is the amount and whose rate is one over the mean (``convoy_models.risk.severity``); ``as_frequency`` is that
    model. ``amount``: column with the total amount of a person's claims, 0 without claims. ``amountUnit``: public prior of the
    mean amount. A person counts with at most ``claimCap`` claims of at most ``amountCap`` each, in the column's currency;
    the cap of the insurer tower bounds amount / mean.
    """

    kind: Literal["severity-towers/1"]
    towers: tuple[Tower, ...] = Field(min_length=1, max_length=2)
    claims: Name
    amount: Name
    claimCap: int = Field(ge=1, le=20)
    amountCap: DecimalString
    amountUnit: DecimalString
    priorScale: DecimalString = "0.15"
    smoothness: DecimalString = "0.8"
    sweeps: int = Field(default=4, ge=1, le=50)
    labelShareMilli: int = Field(default=400, ge=1, le=999)
    patterns: Literal["own", "joint-only"] = "own"
    soloSweeps: int = Field(default=3, ge=1, le=50)
    epsilonMicro: int = Field(ge=1)
    deltaNano: int = Field(ge=1)
    noiseRule: Literal["honest-one/1"] = NOISE_RULE
    cohortFloor: int = Field(default=30_000, ge=1)

    @model_validator(mode="after")
    def _amounts_are_positive(self) -> SeveritySpecification:
        if Decimal(self.amountUnit) <= 0 or Decimal(self.amountCap) < Decimal(self.amountUnit):
            raise ValueError("amountUnit must be positive and amountCap at least amountUnit")
        names = {feature.name for tower in self.towers for feature in tower.features}
        if self.claims == self.amount or {self.claims, self.amount} & names:
            raise ValueError("claims and amount must be two columns that are no features")
        return self

    def as_frequency(self) -> RiskSpecification:
        """Return the Poisson model of claims per amount (in units) that has the same sums."""
        return RiskSpecification(
            kind="risk-towers/1",
            towers=self.towers,
            claims=self.claims,
            exposure=self.amount,
            claimCap=self.claimCap,
            priorRate="1",
            priorScale=self.priorScale,
            smoothness=self.smoothness,
            sweeps=self.sweeps,
            labelShareMilli=self.labelShareMilli,
            patterns=self.patterns,
            soloSweeps=self.soloSweeps,
            epsilonMicro=self.epsilonMicro,
            deltaNano=self.deltaNano,
            cohortFloor=self.cohortFloor,
        )


class RecommendSpecification(Closed):
    """Item-item model from a noisy Gram matrix and a cold-start map from the OEM profile (DESIGN §3)."""

    kind: Literal["recommend-items/1"]
    items: tuple[Name, ...] = Field(min_length=2, max_length=2000)
    profile: tuple[Knots, ...] = Field(min_length=1, max_length=64)
    historyNorm: DecimalString
    gramShareMilli: int = Field(ge=1, le=998)
    crossShareMilli: int = Field(ge=1, le=998)
    epsilonMicro: int = Field(ge=1)
    deltaNano: int = Field(ge=1)
    noiseRule: Literal["honest-one/1"] = NOISE_RULE
    cohortFloor: int = Field(default=3_000, ge=1)
    rowAudit: RowAudit | None = None
    backend: Backend | None = None

    @model_validator(mode="after")
    def _audit_needs_the_trustee(self) -> RecommendSpecification:
        if self.rowAudit is not None and self.backend is not None:
            raise ValueError(
                "rowAudit works on the trustee's sums; a specification with another backend cannot ask for it"
            )
        return self

    @model_validator(mode="after")
    def _shares_leave_something(self) -> RecommendSpecification:
        if self.gramShareMilli + self.crossShareMilli >= 1000:
            raise ValueError("gramShareMilli + crossShareMilli must leave a share for the profile matrix")
        return self


class Cuts(Closed):
    """A numeric feature as cells between public cuts: cell k holds ``cuts[k-1] <= x < cuts[k]``.

    ``coarse`` is the part of the cuts that pairs use; without it pairs use all of them.
    """

    kind: Literal["cuts"]
    name: Name
    cuts: tuple[DecimalString, ...] = Field(min_length=1, max_length=63)
    coarse: tuple[DecimalString, ...] | None = None

    @model_validator(mode="after")
    def _cuts_increase(self) -> Cuts:
        values = [Decimal(k) for k in self.cuts]
        if any(b <= a for a, b in pairwise(values)):
            raise ValueError(f"cuts of {self.name!r} must be strictly increasing")
        if self.coarse is not None:
            coarse = [Decimal(k) for k in self.coarse]
            if not coarse or any(b <= a for a, b in pairwise(coarse)) or not set(coarse) <= set(values):
                raise ValueError(f"coarse cuts of {self.name!r} must be an increasing part of its cuts")
        return self

    @property
    def width(self) -> int:
        """Number of cells of the feature's own table."""
        return len(self.cuts) + 1


Cells = Annotated[Cuts | Levels, Field(discriminator="kind")]


class Descent(Closed):
    """A training by DP-SGD through LOCAL sums: steps over secret Poisson samples; never over a joint cohort.

    ``rateMicro``: chance of a person to be in a step, in millionths, by a secret coin of its node. ``batch``: the PUBLIC
    number by which a step's sum is divided, whatever its real size. ``noiseMilli``: sigma of a step's sum in thousandths of
    ``clip``. ``costMicro``: what all steps cost together, mu^2 in millionths, at least what the accountant says of rate,
    noise and steps; the rest of the run's mu^2 is for its other sums. ``seed``: of the public weights it starts from.
    """

    steps: int = Field(ge=1, le=1000)
    rateMicro: int = Field(ge=1, le=1_000_000)
    batch: int = Field(ge=1)
    clip: DecimalString = "1"
    noiseMilli: int = Field(ge=100, le=1_000_000)
    costMicro: int = Field(ge=1)
    learningRate: DecimalString = "0.5"
    decay: DecimalString = "0"
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _numbers_are_positive(self) -> Descent:
        if Decimal(self.clip) <= 0 or Decimal(self.learningRate) <= 0 or Decimal(self.decay) < 0:
            raise ValueError("clip and learningRate must be positive, decay not negative")
        return self


class Residual(Descent):
    """A small network on top of the tables (CANN): one layer of ``hidden`` units."""

    hidden: int = Field(ge=2, le=64)


class Network(Descent):
    """Two towers: a person's history and columns pass ``units`` units into a ``space`` in which items have places, too."""

    units: int = Field(ge=2, le=64)
    space: int = Field(ge=2, le=32)


class ListTest(Closed):
    """Hold-out of a recommender, and the gate before its release (``convoy_models.recommend.judged``).

    ``holdoutMilli``: share of persons who are never trained on, by secret coins of their node. ``shareMilli``: share of the
    run's mu^2 that judging costs. ``confidenceMilli``: how sure "better than the general list" must be. ``length``: of the list
    in which a hidden item has to be.
    """

    holdoutMilli: int = Field(default=200, ge=20, le=500)
    shareMilli: int = Field(default=50, ge=5, le=500)
    confidenceMilli: int = Field(default=800, ge=500, le=999)
    length: int = Field(default=10, ge=1, le=100)


class TowersSpecification(Closed):
    """Two towers over histories of charging operators with the same columns about different persons (DESIGN §3).

    A step of DP-SGD needs a person's whole gradient at one node, so every column is a charging operator's: its histories, and
    ``profile``, what else it knows of a person. A carmaker's profile belongs into ``recommend-items/1``. ``popularityMilli``:
    share of the run's mu^2 for how often each item is used: the general list, and where the training starts.
    """

    kind: Literal["recommend-towers/1"]
    items: tuple[Name, ...] = Field(min_length=2, max_length=2000)
    profile: tuple[Feature, ...] = Field(default=(), max_length=64)
    network: Network
    test: ListTest = ListTest()
    popularityMilli: int = Field(default=50, ge=5, le=500)
    epsilonMicro: int = Field(ge=1)
    deltaNano: int = Field(ge=1)
    noiseRule: Literal["honest-one/1"] = NOISE_RULE
    cohortFloor: int = Field(default=3_000, ge=1)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> TowersSpecification:
        names = [feature.name for feature in self.profile]
        if len(set(self.items)) != len(self.items) or len(set(names)) != len(names):
            raise ValueError("items or profile columns repeat")
        if "items" in names:
            raise ValueError("'items' is the column of histories and no profile column")
        if self.test.length >= len(self.items):
            raise ValueError("a list as long as the catalogue tests nothing; shorten test.length")
        return self


class PairsSpecification(Closed):
    """Poisson frequency from tables of one feature and of two: all columns at one kind of party (DESIGN §3).

    ``claimCap`` bounds a person's claims, ``modelCap`` its expected claims in every sum; ``mainScale`` and
    ``pairScale`` are the prior standard deviations of log factors; ``mainWeightMilli`` how much more exactly
    (in standard deviations) tables of one feature are measured than tables of two.
    """

    kind: Literal["risk-pairs/1"]
    features: tuple[Cells, ...] = Field(min_length=1, max_length=64)
    pairs: tuple[tuple[Name, Name], ...] = Field(default=(), max_length=256)
    claims: Name
    exposure: Name
    claimCap: int = Field(default=1, ge=1, le=20)
    modelCap: DecimalString = "0.25"
    priorRate: DecimalString
    mainScale: DecimalString = "0.3"
    pairScale: DecimalString = "0.1"
    passes: int = Field(default=3, ge=1, le=20)
    labelShareMilli: int = Field(default=600, ge=1, le=999)
    mainWeightMilli: int = Field(default=1500, ge=100, le=10_000)
    epsilonMicro: int = Field(ge=1)
    deltaNano: int = Field(ge=1)
    noiseRule: Literal["honest-one/1"] = NOISE_RULE
    cohortFloor: int = Field(default=30_000, ge=1)
    residual: Residual | None = None

    @model_validator(mode="after")
    def _pairs_name_features(self) -> PairsSpecification:
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError("feature names repeat")
        if any("*" in name for name in names):
            raise ValueError("feature names of risk-pairs/1 must not hold '*'")
        if {self.claims, self.exposure} & set(names):
            raise ValueError("claims and exposure cannot be features")
        if any(a == b or a not in names or b not in names for a, b in self.pairs):
            raise ValueError("a pair must name two different features")
        if len({frozenset(pair) for pair in self.pairs}) != len(self.pairs):
            raise ValueError("pairs repeat")
        if Decimal(self.modelCap) <= 0 or Decimal(self.priorRate) <= 0:
            raise ValueError("modelCap and priorRate must be positive")
        return self


Specification = Annotated[
    RiskSpecification | SeveritySpecification | PairsSpecification | RecommendSpecification | TowersSpecification,
    Field(discriminator="kind"),
]
