"""Labelled offers: joint with privacy against every partner alone, against pooled, on persons nobody trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError
from recommend_data import Described, DescriptionRefused, as_text, folds_of, knots, levels, numbers, unquoted

from convoy_models.accounting import mu_of
from convoy_models.evaluation import auc
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.recommend.descent import Terms, train
from convoy_models.recommend.offers import OfferDesign, OfferRows, log_odds, probability
from convoy_models.testing import SeededNoise

Floats = npt.NDArray[np.float64]
SETTINGS = {"steps": 20, "rate": 10.0, "clip": 0.15, "ridge": 0.003}
PLAIN_STEPS = 60
DELTA = 1e-6
DRAWS = 200
"""Of whole persons, for an interval."""
AUTO_LEVELS = 60
AUTO_CELLS = 3000
"""Undeclared crosses stop here: noise per cell does not shrink with their number."""


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that is learned from. fold: (N,) test fold; folds without training rows are never used."""

    design: OfferDesign
    rows: Any
    plain: Floats
    taken: Floats
    fold: npt.NDArray[np.int64]
    folds: tuple[int, ...]
    described: Described


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result; ``auc`` is the mean over test folds of persons nobody trained on.

    ``interval``: 95 % of AUC minus that of the better of the two models that partners can train alone, over draws of persons.
    """

    model: str
    epsilon: float | None
    runs: int
    auc: float
    auc_sd: float
    log_loss: float
    seconds: float
    interval: tuple[float, float] | None = None


def prepare(described: Described) -> Task:
    """Build design, answers and folds.

    Raises:
        DescriptionRefused: every fault of features, crosses, labels and hold-out at once.
    """
    faults: list[str] = list(described.faults)
    taken = _answers(described, faults)
    features, columns = _features(described, faults)
    names = [feature.name for feature in features]
    crosses = _crosses(described, {feature.name: feature.width for feature in features}, faults)
    fold, folds = _folds(described, faults)
    faults += _one_sided(taken, fold, folds)
    if not features and "features" not in described.malformed:
        faults.append("features: no usable one is left; the notes of columns say why, name others")
    if faults:
        raise DescriptionRefused(faults)
    design = OfferDesign(tuple(features), tuple([(name,) for name in names] if crosses is None else crosses))
    plain = np.stack([_code(columns[name]) for name in names], axis=1)
    return Task(design, design.rows(columns), plain, taken, fold, folds, described)


def measure(task: Task, epsilons: Sequence[float], seeds: int, exact: bool) -> list[Row]:
    """Train and judge every model; all on the same test persons."""
    parties = len(task.described.parties)
    train_rows = [task.fold != fold for fold in task.folds]
    own: dict[str, Floats] = {}
    rows = [_line(task, "share of answers 'yes' by nothing (constant)", None, [_constant(task)], 0.0)]

    began = time.monotonic()
    local = _boosted(task, lambda mask: [mask & (task.described.party == k) for k in range(parties)])
    spent = time.monotonic() - began
    own["alone"] = local[task.described.party, np.arange(task.taken.size)]
    rows.append(_line(task, f"{BOOSTER} alone, mean of partners over all test persons", None, list(local), spent))
    rows.append(_line(task, f"{BOOSTER} alone, each partner on its own persons", None, [own["alone"]], spent))
    began = time.monotonic()
    pooled = _boosted(task, lambda mask: [mask])[0]
    rows.append(_line(task, f"{BOOSTER} pooled, no privacy", None, [pooled], time.monotonic() - began))

    own_joint = np.zeros(task.taken.size)
    began = time.monotonic()
    for fold, mask in zip(task.folds, train_rows, strict=True):
        test = task.fold == fold
        for k in range(parties):
            mine = mask & (task.described.party == k)
            if mine.any():
                weights = _fit(task, [mine], None, 0, exact)
                chosen = test & (task.described.party == k)
                own_joint[chosen] = probability(task.rows[chosen], weights)
            else:
                own_joint[test & (task.described.party == k)] = task.taken[mask].mean()
    rows.append(
        _line(task, "this model alone, each partner on its own persons", None, [own_joint], time.monotonic() - began)
    )

    rival = max((own_joint, own["alone"]), key=lambda scores: _auc(task, scores))
    jobs: list[tuple[float | None, int]] = [(None, 1), *((epsilon, seeds) for epsilon in epsilons)]
    for epsilon, count in jobs:
        began = time.monotonic()
        joint, blend = [], []
        for seed in range(count):
            out = np.zeros(task.taken.size)
            for number, (fold, mask) in enumerate(zip(task.folds, train_rows, strict=True)):
                masks = [mask & (task.described.party == k) for k in range(parties)]
                mu2 = None if epsilon is None else mu_of(epsilon, DELTA) ** 2
                weights = _fit(task, masks, mu2, 1000 * seed + number, exact)
                test = task.fold == fold
                out[test] = probability(task.rows[test], weights)
            joint.append(out)
            blend.append(_mixed(out, own["alone"]))
        seconds = (time.monotonic() - began) / count
        what = "without DP" if epsilon is None else f"at epsilon {epsilon:g}"
        gap = _bootstrap(task, joint[0], rival)
        rows.append(_line(task, f"joint {what}", epsilon, joint, seconds, gap))
        gap = _bootstrap(task, blend[0], rival)
        rows.append(_line(task, f"joint {what}, each partner mixes in its own {BOOSTER}", epsilon, blend, seconds, gap))
    return rows


def _fit(task: Task, masks: Sequence[npt.NDArray[np.bool_]], mu2: float | None, seed: int, exact: bool) -> Floats:
    settings = SETTINGS | task.described.text.get("settings", {})
    user = task.described.user
    holders = [OfferRows(task.rows[mask], task.taken[mask], user[mask]) for mask in masks if mask.any()]
    persons = task.described.text.get("persons") or _rounded(sum(holder.persons for holder in holders))
    plain = mu2 is None
    terms = Terms(
        steps=PLAIN_STEPS if plain else int(settings["steps"]),
        rate=5.0 if plain else float(settings["rate"]),
        clip=1.0 if plain else float(settings["clip"]),
        ridge=float(settings["ridge"]),
        persons=float(_rounded(sum(holder.persons for holder in holders)) if plain else persons),
        mu2=mu2,
    )
    sources: list[NoiseSource] = [
        DiscreteGaussian() if exact else SeededNoise(seed * 100 + number) for number in range(len(holders))
    ]
    return train(holders, terms, None if plain else sources)


def _rounded(count: int) -> int:
    """Return a count in buckets of 10, as a node would say it; never 0."""
    return max(10, count // 10 * 10)


def _answers(described: Described, faults: list[str]) -> Floats:
    name = described.text["label"]
    values = described.columns[name]
    positive = described.text.get("positive")
    wanted = positive if isinstance(positive, list) else [] if positive is None else [positive]
    texts = np.array([as_text(v) for v in values])
    if "positive" in described.malformed:
        return np.zeros(texts.size)
    if lost := unquoted("positive", wanted, values):
        faults += lost
        return np.zeros(texts.size)
    as_numbers = numbers(name, values, faults)
    if isinstance(positive, int | float) and not isinstance(positive, bool) and as_numbers is not None:
        taken = (as_numbers >= positive).astype(float)
    elif wanted:
        taken = np.isin(texts, [as_text(v) for v in wanted]).astype(float)
        if strange := [as_text(v) for v in wanted if as_text(v) not in set(texts.tolist())]:
            described.notes.append(f"positive: no row of {name!r} says {', '.join(strange)}")
    else:
        names = sorted(set(texts.tolist()))
        yes = {"1", "true", "yes", "y", "accepted"}
        high = [name for name in names if name.lower() in yes]
        if len(names) != 2 or len(high) != 1:
            few = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
            faults.append(f"label has {len(names)} values ({few}); say which count as yes with 'positive'")
            return np.zeros(texts.size)
        taken = (texts == high[0]).astype(float)
    if taken.min() == taken.max():
        faults.append(
            f"every answer is {'yes' if taken.min() else 'no'}, there is nothing to learn; say which mean yes with 'positive'"
        )
    return taken


def _one_sided(taken: Floats, fold: npt.NDArray[np.int64], folds: Sequence[int]) -> list[str]:
    """Return a fault for each answer that test or learning rows lack: an AUC needs both, and so does learning."""
    faults = []
    for word, answer in (("yes", 1.0), ("no", 0.0)) if taken.min() < taken.max() else ():
        for side in ("test", "learning"):
            rows = {k: fold == k if side == "test" else fold != k for k in folds}
            without = [k for k, mine in rows.items() if not (taken[mine] == answer).any()]
            if without:
                where = f" of fold {without[0] + 1} of {len(folds)}" if len(folds) > 1 else ""
                more = f" (nor in {len(without) - 1} other folds)" if len(without) > 1 else ""
                faults.append(
                    f"holdout: no {word!r} among the {int(rows[without[0]].sum())} {side} rows{where}{more}, both answers are needed:"
                    f" {'take fewer folds' if len(folds) > 1 else 'learn from other values, or take {folds: K}'}"
                )
    return faults


def _features(described: Described, faults: list[str]) -> tuple[list[Any], dict[str, Any]]:
    text, notes = described.text, described.notes
    wanted = text.get("features", "auto")
    if wanted == "auto" and "features" in described.malformed:
        return [], {}
    if wanted == "auto":
        skip = {text.get(key) for key in ("user", "label", "time", "order")} | set(text.get("ignore") or [])
        if isinstance(text.get("parties"), dict):
            skip.add(text["parties"].get("column"))
        if isinstance(text.get("holdout"), dict):
            skip.add(text["holdout"].get("column"))
        wanted = [{"name": name} for name in described.columns if name not in skip]
    features, columns = [], {}
    for row in wanted:
        name = str(row["name"])
        values = _picked(described, row, faults) if "pick" in row else described.columns[name]
        if lost := unquoted(f"feature {name!r}: levels", row.get("levels", ()), values):
            faults += lost
            continue
        try:
            made = _one(name, row, values, notes, faults)
        except ValidationError as error:  # names that are too long, or more levels than a contract takes
            faults += [f"feature {name!r}: {fault['msg']}; correct it, or leave it out" for fault in error.errors()]
            continue
        if made is not None:
            features.append(made[0])
            columns[name] = made[1]
    return features, columns


def _one(
    name: str, row: dict[str, Any], values: list[Any], notes: list[str], faults: list[str]
) -> tuple[Any, Any] | None:
    if "levels" in row:
        return levels(name, row["levels"], values, notes)
    as_numbers = numbers(name, values, faults)
    if "knots" in row:
        if as_numbers is None:
            faults.append(f"feature {name!r} has knots but holds texts; give 'levels' instead")
            return None
        return knots(name, row["knots"], as_numbers, notes)
    if as_numbers is None or np.unique(as_numbers[~np.isnan(as_numbers)]).size <= 8:
        distinct = len({as_text(v) for v in values if v is not None})
        if as_numbers is None and distinct > max(AUTO_LEVELS, len(values) // 4):
            notes.append(f"column {name!r} has {distinct} different texts and is left out")
            return None
        return levels(name, None, values, notes)
    return knots(name, None, as_numbers, notes)


def _picked(described: Described, row: dict[str, Any], faults: list[str]) -> list[Any]:
    """Return, for each row, the value of the column that another column names (visits to the offered kind of place)."""
    pick = row["pick"]
    faults += unquoted(f"feature {row['name']!r}: pick", pick["columns"], described.columns[pick["by"]])
    by = [as_text(v) if v is not None else "" for v in described.columns[pick["by"]]]
    columns = {as_text(key): described.columns[name] for key, name in pick["columns"].items()}
    return [columns[key][place] if key in columns else None for place, key in enumerate(by)]


def _crosses(described: Described, width: dict[str, int], faults: list[str]) -> list[tuple[str, ...]] | None:
    """Return the terms: those of the description, else every feature and its product with the item, small ones first."""
    wanted, item, names = described.text.get("crosses"), described.text.get("item"), list(width)
    if {"features", "crosses"} & described.malformed:
        return None
    if wanted is None:
        if item not in width:
            return None
        terms: list[tuple[str, ...]] = [(name,) for name in names]
        cells, left_out = sum(width.values()), []
        for name in sorted((n for n in names if n != item), key=lambda n: width[n]):
            cells += width[item] * width[name]
            (terms.append((item, name)) if cells <= AUTO_CELLS else left_out.append(name))
        if left_out:
            described.notes.append(
                f"crosses of {item!r} with {', '.join(left_out)} would pass {AUTO_CELLS} cells; declare them instead"
            )
        return terms
    dropped = [pair for pair in wanted if not set(map(str, pair)) <= set(names)]
    rows = described.text.get("features", "auto")
    declared = set(described.columns) if rows == "auto" else {str(row["name"]) for row in rows}
    faults.extend(
        f"cross {' x '.join(map(str, pair))} names a feature that is not declared"
        for pair in dropped
        if not set(map(str, pair)) <= declared | set(names)
    )
    kept = list(dict.fromkeys(tuple(map(str, pair)) for pair in wanted if pair not in dropped))
    return kept or None


def _folds(described: Described, faults: list[str]) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    wanted = described.text.get("holdout", {"folds": 5})
    user = described.user
    if "holdout" in described.malformed:
        return np.zeros(user.size, np.int64), ()
    if "column" in wanted:
        column = described.columns[wanted["column"]]
        faults += unquoted("holdout: learn", wanted["learn"], column)
        learn = np.isin([as_text(v) for v in column], [as_text(v) for v in wanted["learn"]])
        both = np.intersect1d(np.unique(user[learn]), np.unique(user[~learn])).size
        if both:
            described.notes.append(
                f"{both} persons have rows on both sides of the split: the test is not person-grouped"
            )
        if learn.all() or not learn.any():
            faults.append(
                f"holdout: {int(learn.sum())} of {learn.size} rows are for learning; list other values of"
                f" {wanted['column']!r} in 'learn'"
            )
            return np.zeros(user.size, np.int64), ()
        return np.where(learn, 0, 1), (1,)
    folds = int(wanted["folds"])
    people = np.unique(user).size
    if not 2 <= folds <= people // 2:
        if people >= 10:  # fewer are a fault of their own
            faults.append(f"holdout: folds must be 2 to {people // 2} for {people} persons, not {folds}")
        return np.zeros(user.size, np.int64), ()
    return folds_of(user, folds), tuple(range(folds))


def _code(values: Any) -> Floats:
    if values.dtype.kind in "fi":
        return np.asarray(values, dtype=np.float64)
    return np.unique(values, return_inverse=True)[1].astype(np.float64)


def _booster() -> tuple[str, Callable[[], Any]]:
    try:
        from lightgbm import LGBMClassifier
    except ImportError:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return "HistGradientBoosting", HistGradientBoostingClassifier
    return "LightGBM", lambda: LGBMClassifier(verbose=-1, n_jobs=1)


BOOSTER, _make = _booster()
"""The rival, with its library's own settings."""


def _boosted(task: Task, cut: Callable[[npt.NDArray[np.bool_]], list[npt.NDArray[np.bool_]]]) -> Floats:
    """Return probabilities (models, N) of boosters trained on each cut of the learning rows of every fold."""
    count = len(cut(np.ones(task.taken.size, dtype=bool)))
    out = np.full((count, task.taken.size), 0.5)
    for fold in task.folds:
        test = task.fold == fold
        for place, mask in enumerate(cut(~test)):
            answers = task.taken[mask]
            if answers.size == 0 or answers.min() == answers.max():
                out[place, test] = answers.mean() if answers.size else task.taken[~test].mean()
            else:
                out[place, test] = _make().fit(task.plain[mask], answers).predict_proba(task.plain[test])[:, 1]
    return out


def _mixed(joint: Floats, alone: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-(log_odds(joint) + log_odds(alone)) / 2)))


def _constant(task: Task) -> Floats:
    out = np.zeros(task.taken.size)
    for fold in task.folds:
        out[task.fold == fold] = task.taken[task.fold != fold].mean()
    return out


def _auc(task: Task, score: Floats) -> float:
    """Return the mean AUC over test folds; ``prepare`` has seen both answers in each."""
    folds = [task.fold == fold for fold in task.folds]
    return float(np.mean([auc(task.taken[test] > 0, score[test]) for test in folds]))


def _line(
    task: Task, model: str, epsilon: float | None, runs: Sequence[Floats], seconds: float,
    interval: tuple[float, float] | None = None,
) -> Row:  # fmt: skip
    tested = np.isin(task.fold, task.folds)
    scores = [_auc(task, run) for run in runs]
    y = task.taken[tested]
    losses = []
    for run in runs:
        p = np.clip(run[tested], 1e-6, 1 - 1e-6)
        losses.append(float(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))))
    return Row(
        model, epsilon, len(runs), round(float(np.mean(scores)), 4), round(float(np.std(scores)), 4),
        round(float(np.mean(losses)), 4), round(seconds, 2), interval,
    )  # fmt: skip


def _bootstrap(task: Task, first: Floats, second: Floats) -> tuple[float, float] | None:
    """Return the 95 % interval of AUC(first) - AUC(second) over all test rows: ``DRAWS`` draws of whole persons.

    Persons are drawn with replacement, as many as there are; a person's rows weigh as often as they were drawn. A draw with one
    answer only has no AUC and is left out; None if every draw is.
    """
    rows = np.flatnonzero(np.isin(task.fold, task.folds))
    people, code = np.unique(task.described.user[rows], return_inverse=True)
    taken = task.taken[rows] > 0
    ranked = [_Ranked(taken, score[rows]) for score in (first, second)]
    random = np.random.default_rng(1)
    gaps = []
    for _ in range(DRAWS):
        drawn = np.bincount(random.integers(0, people.size, people.size), minlength=people.size)
        weight = drawn[code].astype(np.float64)
        if 0 < weight[taken].sum() < weight.sum():
            gaps.append(ranked[0].auc(weight) - ranked[1].auc(weight))
    if not gaps:
        return None
    low, high = np.quantile(gaps, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


class _Ranked:
    """Scores sorted once, for areas under the ROC curve with many weights. taken: (N,) bool; score: (N,)."""

    def __init__(self, taken: npt.NDArray[np.bool_], score: Floats) -> None:
        distinct, self._tie = np.unique(score, return_inverse=True)
        self._size, self._taken = distinct.size, taken

    def auc(self, weight: Floats) -> float:
        """Return the area with rows that weigh ``weight`` (N,) each; ties count half. Both answers must weigh something."""
        yes = np.bincount(self._tie, weight * self._taken, self._size)
        no = np.bincount(self._tie, weight * ~self._taken, self._size)
        return float(yes @ (np.cumsum(no) - no / 2) / (yes.sum() * no.sum()))
