"""Portfolios as strangers bring them: each runs, says what was assumed, or says everything that is wrong at once.

LENGTH: over 500 lines: one ordinary portfolio, made odd in every way that was met.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml

BENCH = Path(__file__).resolve().parents[3] / "bench"
sys.path.insert(0, str(BENCH))

import risk  # noqa: E402
import rivals  # noqa: E402
from portfolio import DescriptionRefused, Portfolio, read_portfolio  # noqa: E402

SIZE = 4_000


def data(size: int = SIZE) -> dict[str, Any]:
    """Return columns of an ordinary portfolio."""
    rng = np.random.default_rng(5)
    age, town = rng.integers(18, 85, size), rng.choice(["north", "south", "east"], size)
    years = rng.uniform(0.2, 1.0, size)
    rate = 0.2 * np.exp(0.6 * (age < 28) + 0.5 * (town == "north"))
    return {
        "age": age, "town": town, "power": rng.gamma(3, 30, size), "years": years, "claims": rng.poisson(rate * years),
        "who": rng.choice(["A", "B", "C"], size), "set": rng.choice(["learn", "test"], size, p=[0.8, 0.2]),
    }  # fmt: skip


USUAL: dict[str, Any] = {
    "name": "odd", "path": "odd.parquet", "claims": "claims", "exposure": "years", "features": ["age", "town", "power"],
    "split": {"column": "set", "learn": ["learn"]}, "insurers": {"column": "who"},
}  # fmt: skip
TOWERS = {
    "insurer": {
        "cap": "1",
        "features": [{"name": "age", "knots": [18, 25, 40, 60, 85]}, {"name": "town", "levels": ["north", "south", "east"]}],
    },
    "oem": {"cap": "2", "features": [{"name": "power", "knots": [0, 60, 120, 240]}]},
}  # fmt: skip


def described(folder: Path, columns: dict[str, Any], **changes: Any) -> Path:
    """Write rows and a description; a change to None leaves the member out."""
    text = {key: value for key, value in (USUAL | changes).items() if value is not None}
    table = pa.table(columns)
    place = folder / text["path"]
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".csv":
        pyarrow.csv.write_csv(table, place)
    else:
        pq.write_table(table, place)
    (folder / "odd.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    return folder / "odd.yaml"


def run(folder: Path, description: Path, *more: str) -> dict[str, Any]:
    """Run the benchmark; return its document."""
    out = folder / "out.json"
    assert risk.main(["--dataset", str(description), "--epsilon", "4", "--seeds", "1", "--json", str(out), *more]) == 0
    return dict(json.loads(out.read_text(encoding="utf-8")))


def read(folder: Path, columns: dict[str, Any], **changes: Any) -> Portfolio:
    """Describe and read."""
    return read_portfolio(described(folder, columns, **changes), None, 4.0)


def test_only_names_are_needed(tmp_path: Path) -> None:
    """No cuts, no levels, no pairs, no split, no insurers, no exposure: everything that was assumed is said."""
    path = described(tmp_path, data(), split=None, insurers=None, exposure=None)
    document = run(tmp_path, path)
    notes = " ".join(document["notes"])
    for part in ("one year", "no cuts", "no levels", "20% of the rows", "dealt to 5", "priorRate"):
        assert part in notes
    rows = {row["model"]: row["deviance_x100"] for row in document["rows"]}
    assert rows["tables without DP"] < rows["null (one rate)"]
    trees = {"LightGBM, pooled", "LightGBM, local models averaged", "LightGBM, every insurer alone, on its own"}
    trees = trees if rivals.has_lightgbm() else set()
    assert trees | {"pooled GLM, same cells"} <= set(rows)
    assert {row["rival"] for row in document["differences"]} == trees | {"pooled GLM, same cells"}


def test_csv_in_a_folder_beside_the_description(tmp_path: Path) -> None:
    """A relative path is relative to the description; semicolons do."""
    columns = data()
    path = described(tmp_path, columns, path="deep/odd.csv")
    place = tmp_path / "deep" / "odd.csv"
    place.write_text(place.read_text(encoding="utf-8").replace(",", ";"), encoding="utf-8")
    portfolio = read_portfolio(path, None, 4.0)
    assert portfolio.learn.size == SIZE
    assert portfolio.insurers == ("A", "B", "C")


def test_values_that_only_test_rows_have_are_others(tmp_path: Path) -> None:
    """Named levels and read ones alike; in learning rows they are refused."""
    columns = data()
    late = (columns["set"] == "test") & (np.arange(SIZE) % 7 == 0)
    columns["town"] = np.where(late, "island", columns["town"])
    assert risk.main(["--dataset", str(described(tmp_path, columns)), "--seeds", "1", "--no-rivals"]) == 0
    named = [{"name": "age", "cuts": [25, 40, 60]}, {"name": "town", "levels": ["north", "south", "east"]}]
    path = described(tmp_path, columns, features=named, towers=TOWERS)
    assert any("'(other)'" in note for note in run(tmp_path, path, "--no-rivals")["notes"])
    early = columns | {"town": np.where(np.arange(SIZE) == 3, "island", columns["town"]), "set": np.full(SIZE, "learn")}
    early["set"][-400:] = "test"
    assert risk.main(["--dataset", str(described(tmp_path, early, features=named)), "--seeds", "1", "--no-rivals"]) == 2


def test_missing_values_are_cells_and_infinite_ones_are_refused(tmp_path: Path) -> None:
    """A missing number and a missing name each say something of their own."""
    columns = data()
    columns["power"] = pa.array([None if k % 5 == 0 else float(p) for k, p in enumerate(columns["power"])])
    columns["town"] = pa.array([None if k % 6 == 0 else str(t) for k, t in enumerate(columns["town"])])
    document = run(tmp_path, described(tmp_path, columns), "--no-rivals")
    assert sum("missing values" in note for note in document["notes"]) == 2
    endless = data() | {"power": np.full(SIZE, np.inf)}
    with pytest.raises(DescriptionRefused, match="infinite"):
        read(tmp_path, endless)


def test_constant_columns_say_nothing_and_stop_nothing(tmp_path: Path) -> None:
    """A number and a name that never change are noted."""
    columns = data() | {"power": np.full(SIZE, 7.0), "town": np.full(SIZE, "here")}
    document = run(tmp_path, described(tmp_path, columns))
    assert sum("cannot say anything" in note for note in document["notes"]) == 2


def test_an_insurer_with_one_row_takes_part(tmp_path: Path) -> None:
    """And one without any claim, and two insurers only."""
    columns = data()
    columns["who"] = np.where(np.arange(SIZE) == 0, "tiny", np.where(columns["who"] == "C", "B", columns["who"]))
    columns["set"][0] = "learn"
    columns["claims"] = np.where(columns["who"] == "A", 0, columns["claims"])
    document = run(tmp_path, described(tmp_path, columns, towers=TOWERS))
    assert document["insurers"] == 3
    assert all(np.isfinite(row["deviance_x100"]) for row in document["rows"])


def test_a_person_with_many_rows_is_one_person(tmp_path: Path) -> None:
    """One learning row each, claims and years added; nobody is on both sides of an own split."""
    columns = data() | {"driver": np.arange(SIZE) // 4}
    portfolio = read(tmp_path, columns, person="driver", split=None, insurers={"count": 1})
    persons = portfolio.columns["driver"]
    assert np.unique(persons[portfolio.learn]).size == portfolio.learn.sum()
    assert not set(persons[portfolio.learn].tolist()) & set(persons[~portfolio.learn].tolist())
    learned = np.isin(columns["driver"], persons[portfolio.learn])
    assert portfolio.claims[portfolio.learn].sum() == columns["claims"][learned].sum()
    assert portfolio.unit == "one person (driver)"


def test_a_carmaker_that_knows_some_persons_only(tmp_path: Path) -> None:
    """The others have a model of their own; their prices use the insurers' columns only."""
    columns = data()
    known = np.arange(SIZE) % 2 == 0
    columns["power"] = pa.array([float(p) if k else None for p, k in zip(columns["power"], known, strict=True)])
    path = described(tmp_path, columns, towers=TOWERS, features=None)
    portfolio = read_portfolio(path, None, 4.0)
    assert portfolio.linked.sum() == known.sum()
    assert portfolio.towers.patterns == "own"
    assert set(portfolio.party_frames()["oem"]["row"].tolist()) == set(np.flatnonzero(portfolio.learn & known).tolist())
    document = run(tmp_path, path, "--no-rivals")
    assert any("knows 2000 of 4000 persons" in note for note in document["notes"])
    rows = {row["model"]: row["deviance_x100"] for row in document["rows"]}
    assert rows["joint without DP"] < rows["null (one rate)"]


def test_towers_need_only_names_and_numbers_may_be_numbers(tmp_path: Path) -> None:
    """Knots, levels and caps are assumed; 0.2 and "0.2" are one setting."""
    towers = {"insurer": {"features": ["age", "town"]}, "oem": {"features": ["power"]}}
    path = described(
        tmp_path, data(), towers=towers, features=None, boosting={"mainScale": 0.4}, settings={"priorScale": 0.25}
    )
    document = run(tmp_path, path, "--no-rivals")
    assert any("no knots" in note for note in document["notes"])
    assert document["specifications"]["towers"]["priorScale"] == "0.25"
    assert document["specifications"]["tables"]["mainScale"] == "0.4"
    rows = {row["model"]: row["deviance_x100"] for row in document["rows"]}
    assert rows["joint without DP"] < rows["null (one rate)"]


def test_exposure_in_days(tmp_path: Path) -> None:
    """Said by the description; unsaid days are refused with what to say."""
    columns = data() | {"years": np.full(SIZE, 180)}
    assert read(tmp_path, columns, exposureUnit="days").years[0] == pytest.approx(0.4928, abs=1e-3)
    with pytest.raises(DescriptionRefused, match="exposureUnit: days"):
        read(tmp_path, columns)


def test_frequent_claims_widen_the_caps(tmp_path: Path) -> None:
    """A fleet with 1.5 claims a year is not cut to the caps of a quiet one."""
    columns = data()
    columns["claims"] = np.random.default_rng(1).poisson(1.5 * columns["years"] * np.where(columns["age"] < 28, 2, 1))
    document = run(tmp_path, described(tmp_path, columns), "--no-rivals")
    spec = document["specifications"]["tables"]
    assert spec["claimCap"] >= 3
    assert float(spec["modelCap"]) >= 1.0
    rows = {row["model"]: row["deviance_x100"] for row in document["rows"]}
    assert rows["tables at epsilon 4"] < rows["null (one rate)"]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """With the place, the cause and what to do; never a traceback."""
    path = described(
        tmp_path, data(), colour="red", split={"column": "set", "share": 2}, insurers={"count": 0}, exposureUnit="weeks",
        features=[{"nom": "age"}, {"name": "town", "levels": "north"}, {"name": "power", "knot": [1]}],
        towers={"broker": {"features": []}},
    )  # fmt: skip
    with pytest.raises(DescriptionRefused) as refused:
        read_portfolio(path, None, 4.0)
    text = str(refused.value)
    assert text.count("Fix:") >= 8
    for part in (
        "'colour'",
        "'share'",
        "without 'learn'",
        "count is 0",
        "weeks",
        "no 'name'",
        "not a list",
        "'knot'",
        "broker",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("column", "values", "cause"),
    [
        ("claims", np.full(SIZE, 0.5), "not whole numbers"),
        ("claims", np.full(SIZE, -1), "not whole numbers"),
        ("claims", np.zeros(SIZE, dtype=int), "no claim in any row"),
        ("claims", np.full(SIZE, "two"), "not claim counts"),
        ("years", np.full(SIZE, np.nan), "outside"),
        ("who", pa.array([None] * SIZE, pa.string()), "missing values"),
        ("set", np.full(SIZE, "learn"), "learning rows"),
        ("age", pa.array([None] * SIZE, pa.date32()), "dates"),
    ],
)
def test_values_that_cannot_be_used_are_named(tmp_path: Path, column: str, values: Any, cause: str) -> None:
    """By column, with the number of rows."""
    with pytest.raises(DescriptionRefused, match=cause) as refused:
        read(tmp_path, data() | {column: values})
    assert f"{column!r}" in str(refused.value)


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "name: [unclosed", "name: x\npath: y\n", "\x00"])
def test_files_that_are_no_description(tmp_path: Path, text: str) -> None:
    """Refused in words, exit code 2."""
    (tmp_path / "bad.yaml").write_text(text, encoding="utf-8")
    assert risk.main(["--dataset", str(tmp_path / "bad.yaml"), "--seeds", "1"]) == 2
    assert risk.main(["--dataset", str(tmp_path / "nowhere.yaml"), "--seeds", "1"]) == 2


def test_faults_of_form_columns_and_values_are_told_in_one_list_with_the_party(tmp_path: Path) -> None:
    """A stranger corrects everything in one go: unknown member, absent column, missing insurer, negative exposure."""
    columns = data()
    columns["years"] = np.where(np.arange(SIZE) == 7, -1.0, columns["years"])
    holder = str(columns["who"][7])
    columns["claims"] = pa.array([None if k == 9 else int(n) for k, n in enumerate(columns["claims"])])
    with pytest.raises(DescriptionRefused) as refused:
        read(tmp_path, columns, colour="red", features=["age", "gone"], settings={"priorRate": -1})
    text = str(refused.value)
    assert "no column 'gone' (rating factor of the insurers)" in text
    assert f"1 values are outside (0, 10] years (at {holder}: 1)" in text
    assert f"1 missing values (at {columns['who'][9]}: 1)" in text
    for part in ("'colour'", "priorRate is -1"):
        assert part in text
    assert text.count("Fix:") == 5


def test_unknown_levels_are_told_with_their_holders_before_anything_is_trained(tmp_path: Path) -> None:
    """Of the insurers by name, of the carmaker as such; with other faults of values in the same list."""
    columns = data()
    columns["set"][:10] = "learn"
    columns["town"] = np.where(np.arange(SIZE) == 3, "island", columns["town"])
    columns["fuel"] = np.where(np.arange(SIZE) == 5, "steam", "petrol")
    towers = {
        "insurer": {"features": [{"name": "town", "levels": ["north", "south", "east"]}]},
        "oem": {"features": [{"name": "fuel", "levels": ["petrol", "diesel"]}]},
    }
    with pytest.raises(DescriptionRefused) as refused:
        read(
            tmp_path,
            columns,
            features=None,
            towers=towers,
            insurers={"column": "who", "groups": {"A": ["A"], "B": ["B"]}},
        )
    text = str(refused.value)
    assert "hold 'island', not among its levels" in text
    assert "at the carmaker hold 'steam'" in text
    assert "no group holds ['C']" in text


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"features": [{"name": "age", "cuts": [20, "old"]}]}, "cuts holds ['old']"),
        ({"features": [{"name": "age", "cuts": []}]}, "cuts is not a list"),
        ({"features": [{"name": "age", "range": [90, 18]}]}, "range is"),
        ({"features": [{"name": "age", "range": [18, 90], "bins": "many"}]}, "bins is 'many'"),
        ({"features": [{"name": "age", "range": [18, 90], "scale": "square"}]}, "scale is 'square'"),
        ({"features": [{"name": "town", "levels": ["a", "a"]}]}, "levels repeat"),
        ({"features": [{"name": "age", "cuts": [30], "coarse": 30}]}, "coarse is not a list"),
        ({"split": {"seed": "x"}}, "seed is 'x'"),
        ({"insurers": {"groups": {"a": [1]}}}, "neither 'column' nor 'count'"),
        ({"references": {"theirs": "best"}}, "'theirs' is 'best'"),
        ({"rivals": "GLM3"}, "rivals"),
        ({"boosting": {"pairs": [["age", "gone"]]}}, "which are no features"),
        ({"boosting": {"pairs": "age"}}, "no list of pairs"),
        ({"towers": TOWERS | {"oem": {"cap": "none", "features": ["power"]}}}, "cap is 'none'"),
        ({"features": ["age", "claims"]}, "is a rating factor too"),
    ],
)
def test_what_is_no_number_or_name_in_a_description_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], cause: str
) -> None:
    """In words and with exit code 2, never by a traceback."""
    path = described(tmp_path, data(200), **changes)
    assert risk.main(["--dataset", str(path), "--seeds", "1", "--no-rivals"]) == 2
    assert cause in capsys.readouterr().err


def test_learning_rows_without_a_claim_teach_nothing(tmp_path: Path) -> None:
    """Claims of test rows only are refused before a rate of zero is divided by."""
    columns = data()
    columns["claims"] = np.where(columns["set"] == "learn", 0, 1)
    with pytest.raises(DescriptionRefused, match="learning rows has a claim"):
        read(tmp_path, columns)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_insurers_with_names_as_people_write_them(tmp_path: Path, count: int) -> None:
    """One, two and seven; columns and parties with spaces, signs and Chinese characters; a file divided by |."""
    plain = data(2_000)
    names = np.array([f"公司 {k + 1} & Söhne" for k in range(count)])
    columns = {
        "Driver age (years)": plain["age"], "Where/区域": plain["town"], "kW": plain["power"], "in force": plain["years"],
        "# claims": plain["claims"], "company": names[np.arange(2_000) % count],
    }  # fmt: skip
    path = described(
        tmp_path, columns, path="odd.csv", claims="# claims", exposure="in force", split=None,
        insurers={"column": "company"}, features=["Driver age (years)", "Where/区域", "kW"],
    )  # fmt: skip
    place = tmp_path / "odd.csv"
    place.write_text(place.read_text(encoding="utf-8").replace(",", "|"), encoding="utf-8")
    document = run(tmp_path, path, "--no-rivals")
    assert document["insurers"] == count
    assert "per person" in document["privacy"]
    assert "delta 1e-06" in document["privacy"]
    assert all(np.isfinite(row["deviance_x100"]) for row in document["rows"])


def test_many_features_and_few_claims_do_not_run_away(tmp_path: Path) -> None:
    """Twenty columns of noise: the assumed scale is small, so the tables stay near one rate; a named scale is taken."""
    rng = np.random.default_rng(3)
    columns = data() | {f"noise {k}": rng.choice(list("abcdefgh"), SIZE) for k in range(20)}
    path = described(tmp_path, columns, features=["age", "town", *(f"noise {k}" for k in range(20))])
    document = run(tmp_path, path, "--no-rivals")
    assert any("no mainScale" in note for note in document["notes"])
    assert float(document["specifications"]["tables"]["mainScale"]) < 0.15
    rows = {row["model"]: row["deviance_x100"] for row in document["rows"]}
    assert rows["tables without DP"] < rows["null (one rate)"]
    assert rows["tables without DP"] < rows["tables, every insurer alone, on its own"]
    wide = described(
        tmp_path, columns, features=["age", *(f"noise {k}" for k in range(20))], boosting={"mainScale": 0.6}
    )
    runaway = {row["model"]: row["deviance_x100"] for row in run(tmp_path, wide, "--no-rivals")["rows"]}
    assert runaway["tables without DP"] > rows["tables without DP"] + 1


def test_who_has_no_learning_rows_takes_no_part_in_a_real_run(tmp_path: Path) -> None:
    """An insurer of test rows only is judged, and left out of the federation with a note."""
    import federated

    columns = data()
    columns["who"] = np.where(columns["set"] == "test", "late", columns["who"])
    portfolio = read(tmp_path, columns)
    assert "late" in portfolio.insurers
    frames = federated._short_names(portfolio, portfolio.pairs)
    assert set(frames) == {"insurer-1", "insurer-2", "insurer-3"}
    assert any("late have no learning rows" in note for note in portfolio.notes)


def test_rows_that_cannot_be_used_are_left_out_where_the_description_says_so(tmp_path: Path) -> None:
    """Exposure of zero and of 31 years, half a claim, no insurer: a note counts them; unsaid, each is a fault."""
    columns = data()
    columns["years"] = np.where(np.arange(SIZE) == 1, 0.0, np.where(np.arange(SIZE) == 2, 31.0, columns["years"]))
    columns["claims"] = np.where(np.arange(SIZE) == 3, 0.5, columns["claims"])
    columns["who"] = np.where(np.arange(SIZE) == 4, "", columns["who"])
    portfolio = read(tmp_path, columns, leaveOut=True)
    assert portfolio.learn.size == SIZE - 4
    assert set(portfolio.insurers) == {"A", "B", "C"}
    assert any(f"4 of {SIZE} rows are left out" in note for note in portfolio.notes)
    with pytest.raises(DescriptionRefused) as refused:
        read(tmp_path, columns)
    assert str(refused.value).count("leaveOut: true") == 3
    with pytest.raises(DescriptionRefused, match="no row can be used"):
        read(tmp_path, columns | {"years": np.zeros(SIZE)}, leaveOut=True)
    with pytest.raises(DescriptionRefused, match="write true or false"):
        read(tmp_path, columns, leaveOut="yes")


def test_a_fleet_of_more_years_than_count_keeps_its_rate(tmp_path: Path) -> None:
    """Of 60 vehicle years ten count, and claims in the same proportion: nobody's rate grows by being added up."""
    columns = data()
    owner = np.where(np.arange(SIZE) < 2_400, np.arange(SIZE) // 60, 10_000 + np.arange(SIZE))
    columns |= {"owner": owner, "years": np.full(SIZE, 1.0), "claims": np.random.default_rng(3).poisson(0.3, SIZE)}
    portfolio = read(tmp_path, columns, person="owner", split={"groupBy": "owner", "seed": 2}, insurers={"count": 3})
    learn = portfolio.learn
    fleets = learn & (portfolio.years > 9)
    assert fleets.sum() > 20
    assert portfolio.claims[fleets].sum() / portfolio.years[fleets].sum() == pytest.approx(0.3, abs=0.06)
    assert any(f"{int(fleets.sum())} persons have more than 10 years" in note for note in portfolio.notes)


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"exposureUnit": "weeks"}, "exposureUnit: it is 'weeks'"),
        ({"features": [{"name": "age", "knots": [40]}]}, "knots is [40]"),
        ({"features": [{"name": "age", "cuts": [40, 30, 30]}]}, "from low to high"),
        ({"features": [{"name": "power", "range": [-50, 100], "scale": "log1p"}]}, "begins at -50 with scale log1p"),
        ({"boosting": False}, "nothing is trained"),
        ({"boosting": {"passess": 3}}, "unknown member 'passess'"),
        ({"settings": {"sweps": 3}}, "unknown member 'sweps'"),
        ({"towers": {"insurer": {"features": ["age"], "Cap": 2}}}, "unknown member 'Cap'"),
        ({"rivals": ["GLM9"]}, "there is no rival 'GLM9'"),
        ({"split": {"testShare": 0.0005}}, "test rows; at least 10"),
        ({"split": {"column": "set", "learn": ["learn"], "testShare": 0.3}}, "a column beside testShare"),
        ({"insurers": {"count": 5_000}}, "count is 5000 with 4000 rows"),
        ({"insurers": {"column": "who", "groups": {"x": ["A", "B", "C"], "y": ["Z"]}}}, "'y' has no row"),
        ({"insurers": {"column": "who", "groups": {"x": ["A", "B"], "y": ["B", "C"]}}}, "are in 'y' and in another"),
        ({"claims": ["claims"]}, "claims: it is ['claims']"),
        ({"path": "gone.parquet", "exposureUnit": "weeks", "name": 5}, "no file"),
    ],
)
def test_what_would_be_taken_silently_or_fail_later_is_refused(
    tmp_path: Path, changes: dict[str, Any], cause: str
) -> None:
    """Each in words of the description; where several are wrong, all of them."""
    place = described(tmp_path, data(), **(changes if "path" not in changes else {}))
    if "path" in changes:
        place.write_text(yaml.safe_dump(USUAL | changes), encoding="utf-8")
    with pytest.raises(DescriptionRefused) as refused:
        read_portfolio(place, None, 4.0)
    assert cause in str(refused.value)
    if "path" in changes:
        assert "exposureUnit" in str(refused.value)
        assert "name: it is 5" in str(refused.value)


def test_test_rows_without_a_claim_judge_nothing(tmp_path: Path) -> None:
    """D2, Gini and the ranking would be numbers without a meaning."""
    columns = data()
    columns["claims"] = np.where(columns["set"] == "test", 0, columns["claims"])
    with pytest.raises(DescriptionRefused, match="test rows has a claim"):
        read(tmp_path, columns)


def test_a_market_that_nodes_would_refuse_is_said_to_be_one(tmp_path: Path) -> None:
    """Two insurers, and one that has hardly a row: shown, with a note."""
    columns = data()
    columns["who"] = np.where(np.arange(SIZE) < 30, "A", "B")
    notes = " ".join(read(tmp_path, columns).notes)
    assert "fewer than 3 (INSURERS_TOO_FEW)" in notes
    assert "1 insurer(s) with fewer than 100 learning rows (A: " in notes


def test_a_csv_file_says_what_its_parquet_file_says(tmp_path: Path) -> None:
    """An empty cell of text is missing, in a level of its own or where the description says."""
    columns = data()
    columns["town"] = [None if k % 20 == 0 else town for k, town in enumerate(columns["town"])]
    levels = [{"name": "town", "levels": ["north", "south", "east"]}]
    for place in ("odd.parquet", "odd.csv"):
        portfolio = read(tmp_path, columns, path=place, features=levels)
        assert "column 'town': 200 missing values are the level '(missing)'" in portfolio.notes
        assert (portfolio.columns["town"] == "(missing)").sum() == 200
    put = read(tmp_path, columns, path="odd.csv", features=[levels[0] | {"missing": "east"}])
    assert not (put.columns["town"] == "(missing)").any()


def test_a_column_of_nothing_is_one_cell_in_either_format(tmp_path: Path) -> None:
    """All values missing: a note, not a fault about cuts that nobody wrote."""
    columns = data() | {"power": np.full(SIZE, np.nan)}
    for place in ("odd.parquet", "odd.csv"):
        assert any("column 'power'" in note for note in read(tmp_path, columns, path=place).notes)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("年龄,n\n30,1\n".encode("gbk"), "not UTF-8"),
        (b"age,power,n,years\n" + b'30,"1,5",1,"0,5"\n' * 50, "decimal commas"),
    ],
)
def test_files_as_spreadsheets_write_them_are_refused_with_the_fix(tmp_path: Path, content: bytes, cause: str) -> None:
    """GBK and decimal commas."""
    place = described(tmp_path, data(), path="odd.csv", claims="n", features=["power"], split=None, insurers=None)
    (tmp_path / "odd.csv").write_bytes(content)
    with pytest.raises(DescriptionRefused, match=cause):
        read_portfolio(place, None, 4.0)
    (tmp_path / "odd.csv.gz").write_bytes(content)
    place.write_text(yaml.safe_dump(USUAL | {"path": "odd.csv.gz"}), encoding="utf-8")
    with pytest.raises(DescriptionRefused, match="unpack it"):
        read_portfolio(place, None, 4.0)


def test_yes_and_no_of_yaml_are_explained(tmp_path: Path) -> None:
    """YAML 1.1 reads them as true and false; the file has the words."""
    columns = data() | {"garage": np.random.default_rng(1).choice(["yes", "no"], SIZE)}
    with pytest.raises(DescriptionRefused, match="put yes and no in quotes"):
        read(tmp_path, columns, features=["age", {"name": "garage", "levels": [True, False]}])


def test_descriptions_extend_each_other_step_by_step_and_never_themselves(tmp_path: Path) -> None:
    """Three files; a key that stands twice, and a circle, are refused."""
    base = described(tmp_path, data())
    (tmp_path / "two.yaml").write_text(yaml.safe_dump({"extends": base.name, "name": "two"}), encoding="utf-8")
    (tmp_path / "three.yaml").write_text(yaml.safe_dump({"extends": "two.yaml", "unit": "a car"}), encoding="utf-8")
    portfolio = read_portfolio(tmp_path / "three.yaml", None, 4.0)
    assert (portfolio.name, portfolio.unit) == ("two", "a car")
    (tmp_path / "round.yaml").write_text("extends: round.yaml\nname: x\n", encoding="utf-8")
    with pytest.raises(DescriptionRefused, match="extends itself"):
        read_portfolio(tmp_path / "round.yaml", None, 4.0)
    (tmp_path / "twice.yaml").write_text("name: x\nname: y\n", encoding="utf-8")
    with pytest.raises(DescriptionRefused, match="'name' is there twice"):
        read_portfolio(tmp_path / "twice.yaml", None, 4.0)


def test_a_result_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder in its place, or a folder that cannot be made."""
    place = described(tmp_path, data())
    for target in (tmp_path, place / "below.json"):
        assert risk.main(["--dataset", str(place), "--json", str(target)]) == 2
        assert "--json" in capsys.readouterr().err


def test_a_small_book_has_a_rival_that_does_not_learn_its_noise(tmp_path: Path) -> None:
    """Where the usual trees lose against a cautious model on rows that neither has seen, the cautious one is the rival."""
    rng = np.random.default_rng(11)
    columns = data(3_000)
    columns |= {f"noise{k}": rng.normal(size=3_000) for k in range(10)}
    portfolio = read(tmp_path, columns, features=["age", "town", "power", *(f"noise{k}" for k in range(10))])
    features, named = rivals.matrix(portfolio)
    both = rivals.boosted(portfolio, features, named, portfolio.learn)
    usual, rivals_small = rivals.SMALL_ROWS, 0
    try:
        rivals.SMALL_ROWS = rivals_small
        alone = rivals.boosted(portfolio, features, named, portfolio.learn)
    finally:
        rivals.SMALL_ROWS = usual
    test = ~portfolio.learn
    assert (
        risk._losses(portfolio.claims[test], both[test]).sum() < risk._losses(portfolio.claims[test], alone[test]).sum()
    )
