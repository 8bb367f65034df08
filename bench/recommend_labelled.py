"""Labelled offers: joint with privacy against every partner alone, against pooled, on persons nobody trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from recommend_data import Described, DescriptionRefused, as_text, folds_of, knots, levels, numbers

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

    ``interval``: 95 % of AUC minus that of the better of the two models that partners can train alone.
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
    if not features:
        faults.append("no usable feature is left")
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
    settings = SETTINGS | dict(task.described.text.get("settings") or {})
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
    values = described.columns[described.text["label"]]
    positive = described.text.get("positive")
    as_numbers = numbers(values)
    if isinstance(positive, (int, float)) and not isinstance(positive, bool) and as_numbers is not None:
        taken = (as_numbers >= positive).astype(float)
    elif positive is not None:
        wanted = {as_text(v) for v in (positive if isinstance(positive, list) else [positive])}
        taken = np.array([as_text(v) in wanted for v in values], dtype=float)
    else:
        texts = np.array([as_text(v) for v in values])
        names = sorted(set(texts.tolist()))
        yes = {"1", "true", "yes", "y", "accepted"}
        high = [name for name in names if name.lower() in yes]
        if len(names) != 2 or len(high) != 1:
            faults.append(
                f"label has {len(names)} values ({', '.join(names[:5])}…); say which count as yes with 'positive'"
            )
            return np.zeros(texts.size)
        taken = (texts == high[0]).astype(float)
    if taken.min() == taken.max():
        faults.append(
            f"every answer is {'yes' if taken.min() else 'no'}, there is nothing to learn; say which mean yes with 'positive'"
        )
    return taken


def _features(described: Described, faults: list[str]) -> tuple[list[Any], dict[str, Any]]:
    text, notes = described.text, described.notes
    wanted = text.get("features", "auto")
    if wanted == "auto":
        skip = {text.get(key) for key in ("user", "label", "time", "order")} | set(text.get("ignore") or [])
        if isinstance(text.get("parties"), dict):
            skip.add(text["parties"].get("column"))
        if isinstance(text.get("holdout"), dict):
            skip.add(text["holdout"].get("column"))
        wanted = [{"name": name} for name in described.columns if name not in skip]
    if not isinstance(wanted, list) or not all(isinstance(row, dict) and "name" in row for row in wanted):
        faults.append("features: 'auto' or a list of {name, knots | levels, pick} is due")
        return [], {}
    features, columns = [], {}
    for row in wanted:
        name = str(row["name"])
        values = _picked(described, row, faults) if "pick" in row else described.columns.get(name)
        if values is None:
            if "pick" not in row:
                faults.append(f"feature {name!r} is not a column of the file; name one of its columns")
            continue
        try:
            made = _one(name, row, values, notes, faults)
        except (TypeError, ValueError) as error:
            faults.append(f"feature {name!r}: {' '.join(str(error).split())}")
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
    as_numbers = numbers(values)
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


def _picked(described: Described, row: dict[str, Any], faults: list[str]) -> list[Any] | None:
    """Return, for each row, the value of the column that another column names (visits to the offered kind of place)."""
    pick = row["pick"]
    if not isinstance(pick, dict) or set(pick) != {"by", "columns"} or not isinstance(pick["columns"], dict):
        faults.append(f"feature {row['name']!r}: pick needs 'by' and 'columns' (value: column)")
        return None
    by = [as_text(v) if v is not None else "" for v in described.columns[pick["by"]]]
    columns = {as_text(key): described.columns[name] for key, name in pick["columns"].items()}
    return [columns[key][place] if key in columns else None for place, key in enumerate(by)]


def _crosses(described: Described, width: dict[str, int], faults: list[str]) -> list[tuple[str, ...]] | None:
    """Return the terms: those of the description, else every feature and its product with the item, small ones first."""
    wanted, item, names = described.text.get("crosses"), described.text.get("item"), list(width)
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
    if not isinstance(wanted, list) or not all(isinstance(pair, list) and len(pair) in (1, 2) for pair in wanted):
        faults.append("crosses: a list of lists of one or two feature names is due")
        return None
    dropped = [pair for pair in wanted if not set(map(str, pair)) <= set(names)]
    declared = {
        str(row["name"]) for row in described.text.get("features", []) if isinstance(row, dict) and "name" in row
    }
    faults.extend(
        f"cross {' x '.join(map(str, pair))} names a feature that is not declared"
        for pair in dropped
        if not set(map(str, pair)) <= declared | set(names)
    )
    kept = list(dict.fromkeys(tuple(map(str, pair)) for pair in wanted if pair not in dropped))
    return kept or None


def _folds(described: Described, faults: list[str]) -> tuple[npt.NDArray[np.int64], tuple[int, ...]]:
    wanted = described.text.get("holdout") or {"folds": 5}
    user = described.user
    if not isinstance(wanted, dict):
        faults.append("holdout: {folds: K} or {column: NAME, learn: [values]} is due")
        return np.zeros(user.size, np.int64), ()
    if "column" in wanted:
        column = described.columns.get(wanted["column"])
        if column is None:
            faults.append(f"holdout: column {wanted['column']!r} is not in the file")
            return np.zeros(user.size, np.int64), ()
        learn = np.isin([as_text(v) for v in column], [as_text(v) for v in wanted.get("learn") or []])
        both = np.intersect1d(np.unique(user[learn]), np.unique(user[~learn])).size
        if both:
            described.notes.append(
                f"{both} persons have rows on both sides of the split: the test is not person-grouped"
            )
        if learn.all() or not learn.any():
            faults.append(f"holdout: {int(learn.sum())} of {learn.size} rows are for learning")
        return np.where(learn, 0, 1), (1,)
    folds = wanted.get("folds", 5)
    people = np.unique(user).size
    if type(folds) is not int or not 2 <= folds <= people // 2:
        faults.append(f"holdout: folds must be 2 to {people // 2} for {people} persons")
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
    values = []
    for fold in task.folds:
        test = task.fold == fold
        answers = task.taken[test] > 0
        if 0 < answers.sum() < answers.size:
            values.append(auc(answers, score[test]))
    return float(np.mean(values)) if values else float("nan")


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


def _bootstrap(task: Task, first: Floats, second: Floats, draws: int = 200) -> tuple[float, float]:
    """Return the 95 % interval of AUC(first) - AUC(second): whole persons drawn with replacement, over all test rows."""
    rows = np.flatnonzero(np.isin(task.fold, task.folds))
    _, code = np.unique(task.described.user[rows], return_inverse=True)
    of = [rows[code == k] for k in range(code.max() + 1)] if code.max() < 5000 else None
    random = np.random.default_rng(1)
    gaps = []
    for _ in range(draws if of is not None else 20):
        chosen = (
            np.concatenate([of[k] for k in random.integers(0, len(of), len(of))])
            if of is not None
            else random.choice(rows, rows.size)
        )
        answers = task.taken[chosen] > 0
        if 0 < answers.sum() < answers.size:
            gaps.append(auc(answers, first[chosen]) - auc(answers, second[chosen]))
    low, high = np.quantile(gaps, [0.025, 0.975]) if gaps else (float("nan"), float("nan"))
    return round(float(low), 4), round(float(high), 4)
