"""Any data set of offers or events by description: odd ones run, bad ones say everything that must be corrected.

LENGTH: over 500 lines: three kinds of data set share their makers.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

BENCH = Path(__file__).resolve().parents[3] / "bench"
sys.path.insert(0, str(BENCH))

import recommend  # noqa: E402
import recommend_data  # noqa: E402
import recommend_events  # noqa: E402
import recommend_labelled  # noqa: E402


def offers(path: Path, persons: int = 60, delimiter: str = ",") -> None:
    """Write odd offers: missing values, strings, a constant column, free text, mixed types."""
    random = np.random.default_rng(1)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file, delimiter=delimiter)
        out.writerow(["who", "offer", "age", "mood", "same", "remark", "shop", "took"])
        for person in range(persons):
            for row in range(int(random.integers(1, 9))):
                offer = str(random.choice(["wash", "tyre", "charge"]))
                age = "" if row == 2 else str(20 + person % 50)
                mood = str(random.choice(["good", "bad", ""]))
                took = "yes" if random.random() < 0.2 + 0.6 * (offer == "charge") else "no"
                who = "" if person == 3 and row == 0 else f"p{person}"
                out.writerow([who, offer, age, mood, "x", f"free text {person} {row}", f"shop {person % 3}", took])


def events(path: Path, persons: int = 40) -> None:
    """Write events without instants: everybody uses 1 to 4 of 8 sites, again and again."""
    random = np.random.default_rng(2)
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(["card", "place", "kwh", "when", "stars"])
        for person in range(persons):
            sites = random.permutation(8)[: random.integers(1, 5)]
            for step in range(6):
                stamp = f"2026-01-{1 + person % 28:02d}T{step:02d}:00:00"
                out.writerow(
                    [person, f"site {random.choice(sites)}", "" if step == 1 else 10 + step, stamp, 1 + step % 5]
                )


def run(folder: Path, description: dict[str, Any], *more: str) -> tuple[int, dict[str, Any]]:
    """Run the benchmark as a person would; return the exit code and what it wrote."""
    (folder / "set.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    out = folder / "out.json"
    code = recommend.main(["--dataset", str(folder / "set.yaml"), "--seeds", "1", "--json", str(out), *more])
    return code, json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}


def real(name: str, shared: Path, out: Path, seeds: int) -> int:
    """Run the benchmark on one of the real data sets."""
    more = ["--data", str(shared / "data"), "--seeds", str(seeds), "--json", str(out)]
    return recommend.main(["--dataset", str(BENCH / "data" / name), *more])


def prepared(folder: Path, description: dict[str, Any]) -> Any:
    """Read and check as the benchmark does, without training."""
    (folder / "set.yaml").write_text(yaml.safe_dump(description), encoding="utf-8")
    described = recommend_data.read(folder / "set.yaml")
    kind = recommend_labelled if described.text["kind"] == "labelled" else recommend_events
    return kind.prepare(described)


def faults_of(folder: Path, description: dict[str, Any]) -> tuple[str, ...]:
    """Return the faults of a description, none where it can be used."""
    try:
        prepared(folder, description)
    except recommend_data.DescriptionRefused as refusal:
        return refusal.faults
    return ()


def refused(folder: Path, description: dict[str, Any]) -> str:
    """Return the faults of a description that must be refused."""
    with pytest.raises(recommend_data.DescriptionRefused) as refusal:
        prepared(folder, description)
    return str(refusal.value)


OFFERS = {"name": "odd", "kind": "labelled", "path": "offers.csv", "user": "who", "item": "offer", "label": "took"}
EVENTS = {"name": "odd events", "kind": "events", "path": "events.csv", "user": "card", "item": "place"}


def test_odd_offers_run_with_nothing_but_columns_named(tmp_path: Path) -> None:
    """One partner, no levels, missing values, a constant column and free text: notes say what was done."""
    offers(tmp_path / "offers.csv")
    code, found = run(tmp_path, OFFERS)
    assert code == 0
    best = {row["model"]: row["auc"] for row in found["models"]}
    assert best["joint without DP"] > 0.7
    told = " ".join(found["notes"])
    assert "'same' is constant" in told
    assert "1 of" in told
    assert "one partner" in told
    assert "remark" in told


def test_partners_by_column_semicolons_unknown_levels_and_declared_crosses(tmp_path: Path) -> None:
    """A value outside the public levels counts as (other)."""
    offers(tmp_path / "offers.csv", delimiter=";")
    features = [
        {"name": "offer", "levels": ["wash", "charge"]},
        {"name": "age", "knots": [20, 40, 70]},
        {"name": "mood", "levels": ["good", "bad"]},
    ]
    more = {
        "parties": {"column": "shop"},
        "features": features,
        "crosses": [["offer", "mood"], ["age"]],
        "holdout": {"folds": 3},
    }
    code, found = run(tmp_path, OFFERS | more)
    assert code == 0
    assert found["partners"] == 3
    assert any("(other)" in note for note in found["notes"])
    assert {row["epsilon"] for row in found["models"]} == {None, 1.0, 4.0}


def test_events_without_time_and_ratings_with_a_threshold(tmp_path: Path) -> None:
    """The file's order stands for time; a rating counts from the threshold on."""
    events(tmp_path / "events.csv")
    code, found = run(tmp_path, EVENTS | {"top": 3})
    assert code == 0
    assert any("no time column" in note for note in found["notes"])
    code, found = run(
        tmp_path,
        EVENTS | {"kind": "ratings", "label": "stars", "positive": 2, "time": "when", "parties": {"number": 3}},
    )
    assert code == 0
    assert set(found["models"][0]["hr"]) == {"1", "3", "5"}


def test_contexts_of_events_are_used(tmp_path: Path) -> None:
    """Shares, means, hours and counts, with missing cells."""
    events(tmp_path / "events.csv")
    context = [
        {"name": "energy", "mean_of": "kwh", "knots": [10, 12, 16]},
        {"name": "night", "hours_between": [20, 4], "knots": [0, 0.5, 1]},
        {"name": "visits", "count": True, "knots": [1, 3, 6]},
        {"name": "five", "share_of": {"column": "stars", "values": [5]}, "knots": [0, 1]},
    ]
    code, found = run(tmp_path, EVENTS | {"time": "when", "context": context}, "--noise", "exact")
    assert code == 0
    assert found["noise"] == "exact discrete Gaussian"


def test_parquet_with_instants_in_a_zone_and_a_partner_of_one_person(tmp_path: Path) -> None:
    """Three items shorten the list; missing instants come first; a partner of one person takes part."""
    random = np.random.default_rng(3)
    size = 300
    user = random.integers(0, 40, size)
    start = np.datetime64("2026-01-01T00:00:00", "us")
    when = [None if n % 7 == 0 else (start + np.timedelta64(n, "h")).astype(object) for n in range(size)]
    table = pa.table(
        {
            "card": pa.array([f"{number:04d}" for number in user]).dictionary_encode(),
            "place": random.choice(["a b", "c,d", "充电站"], size),
            "when": pa.array(when, pa.timestamp("us", "Asia/Shanghai")),
            "shop": np.where(user == 3, "tiny", "big"),
        }
    )
    pq.write_table(table, tmp_path / "events.parquet")
    context = [{"name": "night", "hours_between": [20, 7], "knots": [0, 0.5]}]
    changes = {"path": "events.parquet", "time": "when", "parties": {"column": "shop"}, "context": context}
    code, found = run(tmp_path, EVENTS | changes)
    assert code == 0
    assert found["partners"] == 2
    assert set(found["models"][0]["hr"]) == {"1"}
    assert any("come first" in note for note in found["notes"])


def test_the_column_that_splits_never_becomes_a_feature(tmp_path: Path) -> None:
    """Persons of the test side are unknown while learning; the split itself is no input."""
    offers(tmp_path / "offers.csv")
    code, found = run(tmp_path, OFFERS | {"holdout": {"column": "shop", "learn": ["shop 0", "shop 1"]}})
    assert code == 0
    assert not any("'shop'" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"path": "nowhere.csv"}, "nowhere.csv"),
        ({"user": "whom", "label": "taken"}, "'whom' is not in the file"),
        ({"kind": "stories", "colour": "red"}, "member 'colour' is unknown"),
        ({"label": "mood"}, "say which count as yes"),
        (
            {"features": [{"name": "mood", "knots": [0, 1]}, {"name": "price", "levels": ["a"]}]},
            "'price' is not in the file",
        ),
        ({"parties": {"number": 0}}, "number is 0"),
        ({"holdout": {"folds": 900}}, "folds must be"),
        ({"positive": "maybe"}, "every answer is no"),
        ({"crosses": [["offer", "prize"]]}, "not declared"),
        ({"features": [{"name": "age", "knots": [40, 20]}]}, "increasing"),
        ({"persons": "many"}, "persons: 'many' is not a whole number from 1 on"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_cause(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], told: str
) -> None:
    """Exit code 2, every fault in one list."""
    offers(tmp_path / "offers.csv")
    code, found = run(tmp_path, OFFERS | change)
    assert (code, found) == (2, {})
    assert told in capsys.readouterr().err


def test_all_faults_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two wrong columns and a wrong member are three lines."""
    offers(tmp_path / "offers.csv")
    run(tmp_path, OFFERS | {"user": "whom", "item": "thing", "extra": 1})
    assert "3 fault(s)" in capsys.readouterr().err


def test_faults_of_parties_features_and_hold_out_are_one_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are found in different places, and told together."""
    offers(tmp_path / "offers.csv")
    changes = {
        "parties": {"number": 0},
        "features": ["age", {"name": "mood", "knots": [1, 2]}],
        "holdout": {"folds": 900},
        "positive": "maybe",
    }
    assert run(tmp_path, OFFERS | changes)[0] == 2
    told = capsys.readouterr().err
    assert "4 fault(s)" in told
    for part in ("number is 0", "'mood' has knots but holds texts", "folds must be", "every answer is no"):
        assert part in told


def test_too_few_persons_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nine persons neither train nor test anything."""
    offers(tmp_path / "offers.csv", persons=9)
    assert run(tmp_path, OFFERS)[0] == 2
    assert "at least 10" in capsys.readouterr().err


def test_the_coupon_data_reach_their_yardstick(shared: Path, tmp_path: Path) -> None:
    """AUC >= .750 at epsilon 4 on persons nobody trained on; the local booster stays at .72."""
    out = tmp_path / "coupon.json"
    assert (
        recommend.main(
            [
                "--dataset",
                str(BENCH / "data/coupon.yaml"),
                "--data",
                str(shared / "data"),
                "--seeds",
                "1",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    rows = {row["model"]: row for row in json.loads(out.read_text(encoding="utf-8"))["models"]}
    assert rows["joint at epsilon 4"]["auc"] >= 0.750
    assert rows["joint at epsilon 4"]["interval"][0] > 0


def test_the_new_site_task_beats_item_item(shared: Path, tmp_path: Path) -> None:
    """HR@3 above .499 at epsilon 4."""
    out = tmp_path / "dundee.json"
    assert (
        recommend.main(
            [
                "--dataset",
                str(BENCH / "data/dundee.yaml"),
                "--data",
                str(shared / "data"),
                "--seeds",
                "2",
                "--json",
                str(out),
            ]
        )
        == 0
    )
    rows = {row["model"]: row for row in json.loads(out.read_text(encoding="utf-8"))["models"]}
    assert rows["joint choice model at epsilon 4"]["hr"]["3"] > 0.499


def test_test_rows_with_one_answer_only_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No AUC can be had there; a fold without a yes is told as a split without one is."""
    offers(tmp_path / "offers.csv")
    rows = list(csv.DictReader((tmp_path / "offers.csv").open(encoding="utf-8")))
    rows = [row | {"took": "no" if row["shop"] == "shop 2" else row["took"]} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "offers.parquet")
    count = sum(row["shop"] == "shop 2" and bool(row["who"]) for row in rows)
    split = OFFERS | {"path": "offers.parquet", "holdout": {"column": "shop", "learn": ["shop 0", "shop 1"]}}
    assert run(tmp_path, split) == (2, {})
    assert f"holdout: no 'yes' among the {count} test rows" in capsys.readouterr().err
    one = {"who": [f"p{n}" for n in range(40)], "mood": ["good", "bad"] * 20, "took": ["yes", *["no"] * 39]}
    pq.write_table(pa.table(one), tmp_path / "offers.parquet")
    told = refused(tmp_path, {k: v for k, v in (OFFERS | {"path": "offers.parquet"}).items() if k != "item"})
    assert "no 'yes' among the 8 test rows of fold" in told
    assert "(nor in 3 other folds)" in told
    assert "no 'yes' among the 32 learning rows of fold" in told


def test_the_interval_draws_whole_persons_however_many_there_are(tmp_path: Path) -> None:
    """Every row written ten times leaves the interval as it was: 6,000 persons are drawn, not 60,000 rows."""
    random = np.random.default_rng(5)
    size = 6_000
    wash = random.random(size) < 0.5
    rows = {
        "who": np.arange(size).astype(str),
        "offer": np.where(wash, "wash", "tyre"),
        "took": np.where(random.random(size) < 0.3 + 0.3 * wash, "yes", "no"),
    }
    good, noise = wash + random.normal(0, 1, size), random.random(size)
    found = []
    for times in (1, 10):
        table = pa.table({name: np.repeat(values, times) for name, values in rows.items()})
        pq.write_table(table, tmp_path / "offers.parquet")
        task = prepared(tmp_path, OFFERS | {"path": "offers.parquet", "features": ["offer"]})
        found.append(recommend_labelled._bootstrap(task, np.repeat(good, times), np.repeat(noise, times)))
    assert found[0] == found[1]
    assert 0 < found[0][0] < found[0][1]


def test_a_weighted_area_is_that_of_the_rows_repeated() -> None:
    """Ties count half, whatever rows weigh."""
    random = np.random.default_rng(6)
    taken, score = random.random(50) < 0.4, random.integers(0, 8, 50).astype(float)
    weight = random.integers(0, 4, 50)
    again = recommend_labelled.auc(np.repeat(taken, weight), np.repeat(score, weight))
    assert recommend_labelled._Ranked(taken, score).auc(weight.astype(float)) == pytest.approx(again)


def test_notes_say_which_rows_change_their_partner_and_which_partners_are_small(tmp_path: Path) -> None:
    """Rows without partner, persons at several partners, partners of a few persons, and two partners only."""
    rows = [{"card": str(n), "place": str((n + k) % 4), "shop": "ab"[n % 2]} for n in range(40) for k in range(3)]
    rows[0]["shop"] = rows[4]["shop"] = None  # type: ignore[assignment]
    for row in rows[:3] + rows[117:]:
        row["shop"] = None  # type: ignore[assignment]
    rows[6]["shop"] = "b"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    task = prepared(tmp_path, EVENTS | {"path": "events.parquet", "parties": {"column": "shop"}})
    told = "\n".join(task.described.notes)
    assert "7 of 120 rows have no partner in 'shop': 1 count at the partner of the person's other rows, 6 of 2" in told
    assert "1 of 120 rows, of 1 person(s) at several partners, count at the partner of most" in told
    assert "fewer than 10 persons, whose own models say little: (missing) (2)" in told
    assert np.bincount(task.described.party[::3]).tolist() == [2, 19, 19]
    two = prepared(tmp_path, EVENTS | {"path": "events.parquet", "parties": {"number": 2}})
    assert any("two partners: each can tell the other's noisy sums" in note for note in two.described.notes)


def test_the_default_ridge_does_not_hold_a_strong_signal_down(tmp_path: Path) -> None:
    """Without DP the choice model learns which site follows which, as EASE does; with a ridge of .1 it does not, and a note says so."""
    random = np.random.default_rng(7)
    rows = []
    for person in range(300):
        pair = random.permutation(10)[:3]
        rows += [{"card": str(person), "place": f"s{2 * n + k}"} for n in pair for k in random.permutation(2).tolist()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    described = EVENTS | {"path": "events.parquet", "parties": {"number": 3}, "top": [1]}
    found = {}
    for name, settings in (("default", {}), ("held", {"ridge": 0.1})):
        task = prepared(tmp_path, described | {"settings": settings})
        scores = recommend_events._joint(task, None, 0, False)
        found[name] = recommend_events._hits(task, scores, 1).mean()
        assert not recommend_events._held_down(task, [])
    assert found["default"] > 0.95
    assert found["held"] < 0.6
    assert "settings.ridge less than 0.1" in recommend_events._held_down(task, [None, 4.0])[0]
    assert "at epsilon 4" in recommend_events._held_down(task, [4.0])[0]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_hours_are_those_of_the_timestamps_own_zone_on_every_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    """Instants in Shanghai, their texts in a CSV file, and naive times have one and the same clock."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        start, count = np.datetime64("2026-03-29T00:30:00", "us"), 40
        clock = [(start + np.timedelta64(n, "h")).astype(object) for n in range(count)]
        local = pa.array(clock, pa.timestamp("us"))
        table = {"card": pa.array([str(n % 20) for n in range(count)]), "place": pa.array(["a", "b"] * 20)}
        zoned = pa.compute.assume_timezone(local, "Asia/Shanghai")
        pq.write_table(pa.table({**table, "naive": local, "zoned": zoned}), tmp_path / "events.parquet")
        lines = [f"{n % 20},{'ab'[n % 2]},{moment.isoformat()}+08:00" for n, moment in enumerate(clock)]
        (tmp_path / "events.csv").write_text("card,place,text\n" + "\n".join(lines), encoding="utf-8")
        night = [float(moment.hour >= 22 or moment.hour < 6) for moment in clock]
        for path, name in (("events.parquet", "naive"), ("events.parquet", "zoned"), ("events.csv", "text")):
            (tmp_path / "set.yaml").write_text(yaml.safe_dump(EVENTS | {"path": path, "time": name}), encoding="utf-8")
            described = recommend_data.read(tmp_path / "set.yaml")
            faults: list[str] = []
            found = recommend_events._signal(described, {"name": "night", "hours_between": [22, 6]}, faults)
            assert found is not None
            assert (found.tolist(), faults) == (night, [])
            instants = [recommend_events._instant(value) for value in described.columns[name]]
            assert np.diff(np.array(instants, dtype=float)).tolist() == [3600.0] * (count - 1)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_hours_of_numbers_are_refused_and_hours_in_utc_are_noted(tmp_path: Path) -> None:
    """Epoch numbers have no clock of a place."""
    context = [{"name": "night", "hours_between": [22, 6], "knots": [0, 0.5, 1]}]
    start = 1_704_067_200
    rows = [
        {"card": str(n % 20), "place": "abc"[(n // 20) % 3], "ms": 1000 * (start + 3600 * n), "day": date(2026, 1, 1)}
        for n in range(60)
    ]
    table = pa.Table.from_pylist(rows)
    instants = pa.array([row["ms"] for row in rows], pa.timestamp("ms", "UTC"))
    pq.write_table(table.append_column("utc", instants), tmp_path / "events.parquet")
    described = EVENTS | {"path": "events.parquet", "context": context}
    for name in ("ms", "day"):
        assert f"60 values of column {name!r} have no hour of the day" in refused(tmp_path, described | {"time": name})
    assert "hours_between needs member 'time'" in refused(tmp_path, described)
    task = prepared(tmp_path, described | {"time": "utc"})
    assert any("hours are UTC's" in note for note in task.described.notes)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"positive": True}, "positive: YAML"),
        ({"features": [{"name": "took", "levels": [True, False]}]}, "feature 'took': levels: YAML"),
        ({"holdout": {"column": "took", "learn": [True]}}, "holdout: learn: YAML"),
    ],
)
def test_yes_without_quotes_is_told(tmp_path: Path, change: dict[str, Any], place: str) -> None:
    """YAML 1.1 reads it as true, which matches no text of the column."""
    offers(tmp_path / "offers.csv")
    told = refused(tmp_path, OFFERS | change)
    assert f"{place} reads yes/no as true/false" in told
    assert "put them in quotes" in told


def test_truths_of_a_column_of_truths_need_no_quotes(tmp_path: Path) -> None:
    """true means true where the column says so, as a truth or as a text."""
    rows = [{"who": str(n % 20), "mood": n % 3 == 0, "text": str(n % 3 == 0).lower(), "took": n % 2} for n in range(80)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "offers.parquet")
    features = [{"name": name, "levels": [True, False]} for name in ("mood", "text")]
    described = {k: v for k, v in OFFERS.items() if k != "item"} | {"path": "offers.parquet", "features": features}
    task = prepared(tmp_path, described)
    assert [feature.levels[:2] for feature in task.design.features] == [("true", "false")] * 2


def test_the_data_are_found_from_every_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The description's folder, then CONVOY_SHARED, then beside the repository; every place tried is told."""
    offers(tmp_path / "offers.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("CONVOY_SHARED", str(tmp_path / "shared"))
    assert prepared(tmp_path, OFFERS).described.rows
    told = refused(tmp_path, OFFERS | {"path": "nowhere.csv"})
    for folder in (tmp_path, tmp_path / "shared/data", BENCH.parent.parent / "shared/data"):
        assert str(folder / "nowhere.csv") in told
    assert "--data" in told
    (tmp_path / "shared/data").mkdir(parents=True)
    os.replace(tmp_path / "offers.csv", tmp_path / "shared/data/offers.csv")
    assert prepared(tmp_path, OFFERS).described.rows


def test_compressed_files_and_files_in_another_code_are_named_with_the_fix(tmp_path: Path) -> None:
    """Their separator is never guessed from compressed bytes."""
    offers(tmp_path / "offers.csv")
    packed = gzip.compress((tmp_path / "offers.csv").read_bytes())
    for name in ("packed.csv.gz", "packed.csv"):
        (tmp_path / name).write_bytes(packed)
        told = refused(tmp_path, OFFERS | {"path": name})
        assert name in told
        assert "unpack it" in told
    for name, text in (("header.csv", "who,优惠\n1,wash\n"), ("body.csv", "who,offer,took\n1,洗车,yes\n")):
        (tmp_path / name).write_bytes(text.encode("gbk"))
        told = refused(tmp_path, OFFERS | {"path": name})
        assert name in told
        assert "save the file as UTF-8" in told


def test_unknown_members_of_members_and_those_of_another_kind_are_one_list(tmp_path: Path) -> None:
    """Each is named with what is allowed."""
    offers(tmp_path / "offers.csv")
    told = refused(
        tmp_path,
        OFFERS
        | {
            "features": [{"name": "age", "knotz": [1, 2]}, {"name": "mood", "levls": ["good"]}],
            "holdout": {"fold": 3},
            "settings": {"stepz": 3, "rate": "fast", "ridge": "1e-4"},
            "parties": {"number": 3, "seed": 1},
            "context": [],
        },
    )
    for part in (
        "'age': member 'knotz' is unknown; allowed: knots, levels, name, pick", "'mood': member 'levls'", "{'fold': 3}",
        "settings: member 'stepz' is unknown; allowed: clip, rate, ridge, steps", "rate: 'fast' is not a number above 0",
        "ridge: '1e-4' is a text to YAML; write 0.0001", "parties: member 'seed'",
        "member 'context' is not for kind labelled; allowed: crosses",
    ):  # fmt: skip
        assert part in told
    events(tmp_path / "events.csv")
    more = {"features": ["kwh"], "crosses": [["kwh"]], "holdout": {"folds": 3}, "label": "stars"}
    context = [{"name": "n", "mean_of": "kwh", "knots": [1, 2], "nots": 3}]
    told = refused(tmp_path, EVENTS | more | {"context": context})
    assert all(f"member {name!r} is not for kind events" in told for name in more)
    assert "context: 'n': member 'nots' is unknown" in told
    assert "5 fault(s)" in told


@pytest.mark.parametrize("base", ["offers", "events", "ratings"])
def test_a_member_of_any_shape_is_used_or_refused_by_name(tmp_path: Path, base: str) -> None:
    """No value of a member raises anything but the refusal, and the refusal names the member."""
    offers(tmp_path / "offers.csv", persons=30)
    events(tmp_path / "events.csv", persons=15)
    described = OFFERS if base == "offers" else EVENTS
    described = described | ({"kind": "ratings", "label": "stars", "positive": 2} if base == "ratings" else {})
    odd: list[Any] = [
        None, True, -3, 0, 2.5, 10**400, float("nan"), float("inf"), "x", "", [], [[]], [None], [3], ["x", "x"], [{"name": "age"}, {}], {},
        {"a": 1}, {"column": 3}, {"column": "x"}, {"number": "3"}, {"folds": True}, {"column": "age", "learn": 3}, date(2026, 1, 1),
        {"steps": 0.5}, {"rate": float("inf")}, [{"name": "age", "knots": "x"}], [{"name": "age", "pick": 3}], [["age", 3]],
        [{"name": "age", "pick": {"by": [], "columns": {}}}], [{"name": "n", "count": 3, "knots": [0, 1]}],
        [{"name": "n", "share_of": {"column": [], "values": 3}, "knots": [0, 1]}], [{"name": "n", "mean_of": {}, "knots": [0, 1]}],
        [{"name": "n", "hours_between": "night", "knots": [0, 1]}], [{"name": ["n"], "count": True, "knots": [0, float("inf")]}],
    ]  # fmt: skip
    wrong = len(faults_of(tmp_path, described))
    assert wrong == 0
    for member in sorted(recommend_data.MEMBERS[str(described["kind"])]):
        for value in odd:
            faults = faults_of(tmp_path, described | {member: value})
            assert not faults or any(member in fault or "not in the file" in fault for fault in faults), (member, value)
            wrong += len(faults)
    assert wrong > 200


def test_infinite_values_are_a_fault_with_their_column_and_count(tmp_path: Path) -> None:
    """They are not missing values: something went wrong where they were made."""
    rows = [{"who": str(n % 20), "age": float("inf") if n < 3 else n, "took": n % 2} for n in range(80)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "offers.parquet")
    described = {"name": "n", "kind": "labelled", "path": "offers.parquet", "user": "who", "label": "took"}
    assert "column 'age' has 3 infinite values" in refused(tmp_path, described)
    rows = [{"card": str(n % 20), "place": n % 3, "kwh": float("inf") if n < 2 else n} for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "events.parquet")
    context = [{"name": "energy", "mean_of": "kwh", "knots": [0, 9]}]
    assert "column 'kwh' has 2 infinite" in refused(tmp_path, EVENTS | {"path": "events.parquet", "context": context})


def test_a_result_that_cannot_be_written_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, together with the other faults, and nothing was trained; no empty file stays behind a refusal."""
    offers(tmp_path / "offers.csv")
    monkeypatch.setattr(recommend_labelled, "measure", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert run(tmp_path, OFFERS, "--json", str(tmp_path / "file/out.json"))[0] == 2
    told = capsys.readouterr().err
    assert f"--json {tmp_path / 'file/out.json'}: it cannot be written" in told
    assert run(tmp_path, OFFERS | {"persons": 0}, "--epsilon", "0", "--json", str(tmp_path))[0] == 2
    told = capsys.readouterr().err
    assert "3 fault(s)" in told
    assert "--epsilon is 0" in told
    assert run(tmp_path, OFFERS | {"persons": 0}) == (2, {})
    assert not (tmp_path / "out.json").exists()
