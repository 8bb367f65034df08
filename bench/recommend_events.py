"""Events (who used what, when): which NEW item comes next? HR@k of the last item a person used for the first time.

The held-out item and everything after its first use are hidden: history and context of the test are the events before it,
and no training row sees it. Ties count against a model.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import recommend_towers
from recommend_data import Described, DescriptionRefused, as_text, knots, numbers, unquoted

from convoy_models.accounting import mu_of
from convoy_models.features import Block, encode
from convoy_models.noise import DiscreteGaussian, NoiseSource
from convoy_models.recommend.choices import ChoiceRows, choice_rows, choice_scores
from convoy_models.recommend.descent import Terms, train
from convoy_models.testing import SeededNoise

Floats = npt.NDArray[np.float64]
SETTINGS = {"steps": 15, "rate": 3.0, "clip": 0.5, "ridge": 0.0003}
"""``ridge`` is a weight decay on the MEAN gradient of persons: it weighs as much with 100,000 persons as with 100, and at .01 it
holds a strong signal down however many there are. Set on generated events (docs/recommendation.md), not on a real data set."""
PLAIN_STEPS = 100
DELTA = 1e-6
MAX_ITEMS = 200
EASE_RIDGE = 20.0


@dataclass(frozen=True, slots=True)
class Moments:
    """First uses of an item. used: (N, items) before; chosen: (N,); person, party: (N,); blocks: context of the moment."""

    used: npt.NDArray[np.bool_]
    chosen: npt.NDArray[np.int64]
    person: npt.NDArray[np.int64]
    party: npt.NDArray[np.int64]
    blocks: tuple[Block, ...]

    def rows(self) -> Floats:
        """Return the design of the choice model."""
        return choice_rows(self.used, self.blocks)


@dataclass(frozen=True, slots=True)
class Task:
    """items: their names; learn: training moments; test: one moment a person; top: lengths of the list."""

    items: tuple[str, ...]
    learn: Moments
    test: Moments
    top: tuple[int, ...]
    described: Described


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the result: hit rates by length of the list."""

    model: str
    epsilon: float | None
    runs: int
    hr: dict[str, float]
    hr_sd: dict[str, float]
    seconds: float
    interval: tuple[float, float] | None = None


def prepare(described: Described) -> Task:
    """Order events, cut first uses, compute contexts.

    Raises:
        DescriptionRefused: every fault at once.
    """
    faults: list[str] = list(described.faults)
    text, user = described.text, described.user
    keep = np.ones(user.size, dtype=bool)
    if text["kind"] == "ratings":
        values = numbers(text["label"], described.columns[text["label"]], faults)
        if values is None:
            faults.append(f"label {text['label']!r} holds texts, not ratings; name a column of numbers")
        elif "positive" in text:
            keep = values >= float(text["positive"])
    names = np.array([as_text(v) for v in described.columns[text["item"]]])
    items = _items(described, names[keep], faults)
    keep &= np.isin(names, np.array(items))
    order = np.flatnonzero(keep)
    order = order[_order(described, order, faults)]
    usual = [k for k in (1, 3, 5) if k < len(items)] or [1]
    top = tuple(sorted(set(_listed(text.get("top", usual)))))
    if items and top[-1] > len(items):
        faults.append(f"top: {top[-1]} is longer than the list of all {len(items)} items; give shorter lengths")
    wanted = text.get("context", [])
    signals = [_signal(described, row, faults) for row in wanted]
    if len(items) < 2 and "items" not in described.malformed:
        faults.append(f"{len(items)} items; at least 2 are needed, name the column of items with 'item'")
    if faults:
        raise DescriptionRefused(faults)
    place = {name: column for column, name in enumerate(items)}
    people, person = np.unique(user, return_inverse=True)
    learn, test = _cut(
        order, person, np.array([place.get(n, -1) for n in names]), [s for s in signals if s is not None]
    )
    if len(test) < 5:
        raise DescriptionRefused([f"{len(test)} persons used at least two items; 5 are needed for the new-item task"])
    contexts = _contexts(
        [row for row, s in zip(wanted, signals, strict=True) if s is not None], learn, test, described.notes
    )
    party_of = np.zeros(people.size, np.int64)
    party_of[person] = described.party
    made = []
    for moments, blocks in ((learn, contexts[0]), (test, contexts[1])):
        used = np.zeros((len(moments), len(items)), dtype=bool)
        for row, moment in enumerate(moments):
            used[row, moment[2]] = True
        who = np.array([moment[0] for moment in moments], np.int64)
        made.append(Moments(used, np.array([m[1] for m in moments], np.int64), who, party_of[who], blocks))
    return Task(items, made[0], made[1], top, described)


def measure(task: Task, epsilons: Sequence[float], seeds: int, exact: bool) -> list[Row]:
    """Judge popularity, item-item, and the choice model alone, jointly and jointly with privacy."""
    test, parties = task.test, range(len(task.described.parties))
    everything = task.learn.used.copy()
    everything[np.arange(everything.shape[0]), task.learn.chosen] = True
    histories = np.zeros((int(max(task.learn.person.max(), test.person.max())) + 1, len(task.items)))
    np.maximum.at(histories, task.learn.person, everything)
    np.maximum.at(histories, test.person, test.used)
    popular = np.tile(histories.sum(axis=0), (test.chosen.size, 1))
    rows = [_line(task, "popularity", None, [popular], 0.0)]
    began = time.monotonic()
    scores = test.used @ _ease(histories)
    rows.append(
        _line(
            task,
            f"item-item (EASE, ridge {EASE_RIDGE:g}), pooled, no privacy",
            None,
            [scores],
            time.monotonic() - began,
        )
    )
    rival = scores
    began = time.monotonic()
    alone = np.zeros(popular.shape)
    for k in parties:
        own, mine = np.zeros(histories.shape[0], dtype=bool), test.party == k
        own[task.learn.person[task.learn.party == k]] = True
        own[test.person[mine]] = True
        alone[mine] = test.used[mine] @ _ease(histories[own]) if own.any() else popular[mine]
    rows.append(
        _line(task, "item-item alone, each partner on its own persons", None, [alone], time.monotonic() - began)
    )
    jobs: list[tuple[float | None, int]] = [(None, 1), *((epsilon, seeds) for epsilon in epsilons)]
    below: list[float | None] = []
    for epsilon, count in jobs:
        began = time.monotonic()
        runs = [_joint(task, epsilon, seed, exact) for seed in range(count)]
        what = "without DP" if epsilon is None else f"at epsilon {epsilon:g}"
        gap = _bootstrap(task, runs[0], rival)
        rows.append(_line(task, f"joint choice model {what}", epsilon, runs, (time.monotonic() - began) / count, gap))
        below += [epsilon] if gap[1] < 0 else []
    task.described.notes += _held_down(task, below)
    if not recommend_towers.is_there():
        task.described.notes.append("two towers are left out: the extra 'neural' (torch, Opacus) is not installed")
        return rows
    party = np.zeros(histories.shape[0], np.int64)
    party[task.learn.person], party[test.person] = task.learn.party, test.party
    for epsilon, count in jobs:
        began, count = time.monotonic(), min(count, 3)
        runs = [recommend_towers.scores(histories > 0, party, test.used, epsilon, seed, exact) for seed in range(count)]
        what = "without DP" if epsilon is None else f"at epsilon {epsilon:g}"
        gap = _bootstrap(task, runs[0], rival)
        rows.append(_line(task, f"joint two towers {what}", epsilon, runs, (time.monotonic() - began) / count, gap))
    return rows


def _held_down(task: Task, below: Sequence[float | None]) -> list[str]:
    """Return what the choice model's place clearly below the pooled EASE says. below: epsilons where the whole interval is < 0."""
    settings = SETTINGS | task.described.text.get("settings", {})
    if None in below:
        told = (
            "the joint choice model is clearly below the pooled item-item (EASE) even without DP, so noise is not the cause: it is"
            f" over-regularised here, give settings.ridge less than {settings['ridge']:g}; or its context says nothing"
        )
        return [told]
    if not below:
        return []
    told = (
        "the joint choice model is clearly below the pooled item-item (EASE) at epsilon"
        f" {' and '.join(f'{epsilon:g}' for epsilon in below)}, but not without DP: its {settings['steps']} noisy steps at settings.rate"
        f" {settings['rate']:g} do not get there. More persons help, or a rate chosen on other data; recommend-items/1 (one noisy"
        " Gram matrix) is the other choice"
    )
    return [told]


def _joint(task: Task, epsilon: float | None, seed: int, exact: bool) -> Floats:
    settings = SETTINGS | task.described.text.get("settings", {})
    rows, learn = task.learn.rows(), task.learn
    holders = []
    for k in range(len(task.described.parties)):
        mine = learn.party == k
        if mine.any():
            holders.append(ChoiceRows(rows[mine], learn.used[mine], learn.chosen[mine], learn.person[mine]))
    persons = task.described.text.get("persons") or max(10, sum(h.persons for h in holders) // 10 * 10)
    plain = epsilon is None
    terms = Terms(
        steps=PLAIN_STEPS if plain else int(settings["steps"]),
        rate=float(settings["rate"]),
        clip=2.0 if plain else float(settings["clip"]),
        ridge=float(settings["ridge"]),
        persons=float(persons),
        mu2=None if epsilon is None else mu_of(epsilon, DELTA) ** 2,
    )
    sources: list[NoiseSource] = [
        DiscreteGaussian() if exact else SeededNoise(seed * 100 + n) for n in range(len(holders))
    ]
    weights = train(holders, terms, None if plain else sources)
    return choice_scores(task.test.rows(), task.test.used, weights)


def _items(described: Described, names: npt.NDArray[np.str_], faults: list[str]) -> tuple[str, ...]:
    wanted = described.text.get("items", "auto")
    if lost := unquoted("items", wanted if isinstance(wanted, list) else (), described.columns[described.text["item"]]):
        faults += lost
    if isinstance(wanted, list):
        listed = tuple(dict.fromkeys(as_text(item) for item in wanted))
        strange = int(np.count_nonzero(~np.isin(names, np.array(listed)))) if listed else 0
        if strange:
            described.notes.append(f"{strange} events name items that are not listed and are left out")
        if unused := [item for item in listed if item not in set(names.tolist())]:
            few = ", ".join(unused[:5]) + (", …" if len(unused) > 5 else "")
            described.notes.append(f"{len(unused)} of {len(listed)} listed items have no event ({few})")
        return listed
    found, count = np.unique(names, return_counts=True)
    kept = found[np.argsort(-count, kind="stable")][:MAX_ITEMS]
    described.notes.append(f"items are read off the data ({kept.size} of {found.size}); list them for a private run")
    return tuple(sorted(kept.tolist()))


def _order(described: Described, rows: npt.NDArray[np.int64], faults: list[str]) -> npt.NDArray[np.int64]:
    """Return positions in order of time, then of 'order', then of the file."""
    keys: list[Any] = [np.arange(rows.size)]
    for member in ("order", "time"):
        name = described.text.get(member)
        if name is None:
            if member == "time":
                described.notes.append("no time column: the order of the file is taken for the order of events")
            continue
        values = [described.columns[name][row] for row in rows]
        missing = sum(v is None for v in values)
        if missing:
            described.notes.append(f"{missing} events have no {name!r} and come first")
        instants = [_instant(v) for v in values]
        if any(v is not None and i is None for v, i in zip(values, instants, strict=True)):
            faults.append(
                f"{member}: column {name!r} holds values that are neither numbers nor instants; give ISO 8601"
            )
            continue
        keys.append(np.array([-np.inf if i is None else i for i in instants]))
    return np.lexsort(keys)


def _instant(value: Any) -> float | None:
    """Return a number that orders instants, the same on every machine: without a zone they are taken for UTC."""
    with contextlib.suppress(TypeError, ValueError):
        return number if np.isfinite(number := float(value)) else None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.fromisoformat(value.strip())
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    return float(value.toordinal() - _EPOCH) * 86400 if isinstance(value, date) else None


_EPOCH = date(1970, 1, 1).toordinal()


def _clock(value: Any) -> datetime | None:
    """Return an instant with the wall clock of its own zone, or None for what has no hour: numbers, days, other texts."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or len(value.strip()) <= len("2026-01-01"):
        return None
    try:
        return datetime.fromisoformat(value.strip())
    except ValueError:
        return None


def _signal(described: Described, row: dict[str, Any], faults: list[str]) -> Floats | None:
    """Return what each event adds to a context, (rows,); its mean over the past is the context. 1 for 'count'."""
    where, columns = f"context {row['name']!r}", described.columns
    if "count" in row:
        return np.ones(described.rows)
    if "hours_between" in row:
        return _hours(described, row, faults)
    source = row["mean_of"] if "mean_of" in row else row["share_of"]["column"]
    if source not in columns:
        faults.append(f"{where}: column {source!r} is not in the file; name one of its columns")
        return None
    values = columns[source]
    if "share_of" in row:
        faults += unquoted(f"{where}: values", row["share_of"]["values"], values)
        texts, chosen = (
            [None if v is None else as_text(v) for v in values],
            [as_text(v) for v in row["share_of"]["values"]],
        )
        if strange := sorted(set(chosen) - set(texts)):
            described.notes.append(f"{where}: no row of {source!r} says {', '.join(strange)}")
        return np.array([float(text in chosen) for text in texts])
    found = numbers(source, values, faults)
    if found is None:
        faults.append(f"{where}: column {source!r} holds texts; name a column of numbers, or write share_of")
        return None
    return np.where(np.isnan(found), np.nanmean(found) if np.isfinite(found).any() else 0.0, found)


def _hours(described: Described, row: dict[str, Any], faults: list[str]) -> Floats | None:
    """Return whether each event is between two hours, (rows,), on the wall clock of its own zone; 0 where the time is missing."""
    where, source = f"context {row['name']!r}", described.text.get("time")
    if source is None:
        if "time" not in described.malformed:
            faults.append(f"{where}: hours_between needs member 'time'; name the column of instants")
        return None
    values = described.columns[source]
    clocks = [_clock(v) for v in values]
    lost = sum(v is not None and clock is None for v, clock in zip(values, clocks, strict=True))
    if lost:
        faults.append(
            f"{where}: {lost} values of column {source!r} have no hour of the day (numbers, days or other texts); give"
            " timestamps, with the clock of the place"
        )
        return None
    if {clock.tzname() for clock in clocks if clock is not None} == {"UTC"}:
        described.notes.append(
            f"{where}: hours are UTC's, the zone of {source!r}; give the clock of the place if that is meant"
        )
    start, stop = row["hours_between"]
    hours = [None if clock is None else clock.hour for clock in clocks]
    return np.array(
        [float(h is not None and ((start <= h < stop) if start < stop else (h >= start or h < stop))) for h in hours]
    )


def _cut(
    order: npt.NDArray[np.int64], person: npt.NDArray[np.int64], item: npt.NDArray[np.int64], signals: list[Floats]
) -> tuple[list[tuple[int, int, list[int], list[float]]], list[tuple[int, int, list[int], list[float]]]]:
    """Return (person, chosen, used before, sums of the past with its length last) for learning and for the test."""
    by: dict[int, list[int]] = {}
    for row in order:
        by.setdefault(int(person[row]), []).append(int(row))
    learn, test = [], []
    for who, rows in by.items():
        seen: list[int] = []
        sums, count = np.zeros(len(signals)), 0
        found = []
        for row in rows:
            if int(item[row]) not in seen:
                # The first event of all has no past; its own context is the best there is.
                past = [float(s[row]) for s in signals] if count == 0 else (sums / count).tolist()
                found.append((who, int(item[row]), list(seen), [*past, float(max(count, 1))]))
                seen.append(int(item[row]))
            sums, count = sums + np.array([s[row] for s in signals]), count + 1
        if len(found) >= 2:
            test.append(found[-1])
            learn += found[1:-1] if len(found) > 2 else found[:1]
        else:
            learn += found
    return learn, test


def _contexts(
    wanted: list[dict[str, Any]], learn: list[Any], test: list[Any], notes: list[str]
) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    blocks: tuple[list[Block], list[Block]] = ([], [])
    for place, row in enumerate(wanted):
        column = -1 if "count" in row else place
        made = [np.array([moment[3][column] for moment in moments]) for moments in (learn, test)]
        feature = knots(str(row["name"]), row["knots"], np.concatenate(made), notes)
        if feature is not None:
            for kept, values in zip(blocks, made, strict=True):
                kept.append(encode(feature[0], values))
    return tuple(blocks[0]), tuple(blocks[1])


def _ease(histories: Floats) -> Floats:
    gram = histories.T @ histories + EASE_RIDGE * np.eye(histories.shape[1])
    inverse = np.linalg.inv(gram)
    out = -inverse / np.diag(inverse)[None, :]
    np.fill_diagonal(out, 0.0)
    return np.asarray(out)


def _hits(task: Task, scores: Floats, k: int) -> npt.NDArray[np.bool_]:
    open_scores = np.where(task.test.used, -np.inf, scores)
    target = open_scores[np.arange(task.test.chosen.size), task.test.chosen]
    return np.asarray((open_scores >= target[:, None]).sum(axis=1) <= k)


def _line(
    task: Task, model: str, epsilon: float | None, runs: Sequence[Floats], seconds: float,
    interval: tuple[float, float] | None = None,
) -> Row:  # fmt: skip
    hits = {str(k): [float(_hits(task, run, k).mean()) for run in runs] for k in task.top}
    return Row(
        model, epsilon, len(runs), {k: round(float(np.mean(v)), 4) for k, v in hits.items()},
        {k: round(float(np.std(v)), 4) for k, v in hits.items()}, round(seconds, 2), interval,
    )  # fmt: skip


def _bootstrap(task: Task, first: Floats, second: Floats, draws: int = 1000) -> tuple[float, float]:
    """Return the 95 % interval of HR(first) - HR(second) at the middle list length, persons drawn with replacement."""
    k = task.top[len(task.top) // 2]
    gap = _hits(task, first, k).astype(float) - _hits(task, second, k)
    random = np.random.default_rng(1)
    means = gap[random.integers(0, gap.size, (draws, gap.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return round(float(low), 4), round(float(high), 4)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
