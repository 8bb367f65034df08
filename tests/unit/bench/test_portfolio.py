"""Any portfolio by description: good ones run, bad ones say what to correct."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

BENCH = Path(__file__).resolve().parents[3] / "bench"
sys.path.insert(0, str(BENCH))

import risk  # noqa: E402
from portfolio import DescriptionRefused, read_portfolio  # noqa: E402

DESCRIPTION = {
    "name": "small", "path": "small.parquet", "claims": "n", "exposure": "t",
    "split": {"column": "part", "learn": ["train"]}, "insurers": {"column": "who"},
    "towers": {
        "insurer": {"cap": "2", "features": [{"name": "age", "knots": [18, 30, 60, 85]}]},
        "oem": {"cap": "3", "features": [{"name": "fuel", "levels": ["d", "p"]}]},
    },
    "settings": {
        "claimCap": 4, "priorRate": "0.3", "priorScale": "0.3", "smoothness": "0.8", "sweeps": 4,
        "labelShareMilli": 600, "deltaNano": 1000,
    },
}  # fmt: skip


def written(folder: Path, **changes: object) -> Path:
    """Write a small portfolio and its description."""
    rng = np.random.default_rng(1)
    size = 20_000
    age, fuel = rng.uniform(18, 85, size), rng.choice(["d", "p"], size)
    rate = 0.3 * np.exp(0.02 * (50 - age) + 0.8 * (fuel == "p"))
    years = rng.uniform(0.3, 1, size)
    table = pa.table(
        {
            "age": age, "fuel": pa.array(fuel).dictionary_encode(), "t": years,
            "n": rng.poisson(rate * years), "who": rng.choice([1, 2, 3], size),
            "part": rng.choice(["train", "test"], size, p=[0.8, 0.2]),
        }
    )  # fmt: skip
    pq.write_table(table, folder / "small.parquet")
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(DESCRIPTION | changes), encoding="utf-8")
    return path


def test_a_described_portfolio_is_benchmarked_without_code(tmp_path: Path) -> None:
    """Joint finds what the OEM knows; without DP it equals the pooled fit."""
    out = tmp_path / "out.json"
    arguments = ["--dataset", str(written(tmp_path)), "--data", str(tmp_path)]
    assert risk.main([*arguments, "--seeds", "1", "--json", str(out)]) == 0
    rows = {row["model"]: row for row in yaml.safe_load(out.read_text(encoding="utf-8"))["rows"]}
    joint, pooled = rows["joint without DP"], rows["pooled plaintext, same model"]
    alone = rows["every insurer alone, on its own"]
    assert joint["deviance_x100"] < alone["deviance_x100"] - 1.0
    assert abs(joint["deviance_x100"] - pooled["deviance_x100"]) < 0.1
    assert rows["joint at epsilon 4"]["gini"] > alone["gini"]


def test_the_secure_run_is_plugged_in_as_a_function(tmp_path: Path) -> None:
    """It is called for the joint rows with the noise that is wanted."""
    asked = []

    def secure(portfolio, specification, noise, seed):  # type: ignore[no-untyped-def]
        asked.append((specification.epsilonMicro, noise, seed))
        return risk.simulated(portfolio, specification, noise, seed)

    arguments = ["--dataset", str(written(tmp_path)), "--data", str(tmp_path), "--seeds", "2"]
    assert risk.main(arguments, secure) == 0
    assert asked[0][1] == "none"
    assert asked[1:] == [
        (4_000_000, "planned", 0), (4_000_000, "planned", 1),
        (1_000_000, "planned", 0), (1_000_000, "planned", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"path": "nowhere.parquet"}, "no file"),
        ({"claims": "lost"}, "no column 'lost'"),
        ({"colour": 1}, "unknown members"),
        ({"split": {"column": "part", "learn": ["nothing"]}}, "learning rows"),
        ({"insurers": {"column": "who", "groups": {"a": [1, 2]}}}, "no group holds"),
        ({"settings": {"claimCap": 0}}, "towers or settings"),
    ],
)
def test_a_wrong_description_says_what_to_correct(tmp_path: Path, changes: dict[str, object], cause: str) -> None:
    """Before anything is trained."""
    with pytest.raises(DescriptionRefused, match=cause):
        read_portfolio(written(tmp_path, **changes), tmp_path, 4.0)


def test_unusable_values_end_with_exit_code_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A level outside the contract is refused, with the party, the rows and the value."""
    oem = {"cap": "3", "features": [{"name": "fuel", "levels": ["d", "x"]}]}
    towers = DESCRIPTION["towers"] | {"oem": oem}  # type: ignore[operator]
    path = written(tmp_path, towers=towers)
    assert risk.main(["--dataset", str(path), "--data", str(tmp_path), "--seeds", "1"]) == 2
    told = capsys.readouterr().err
    assert "column 'fuel'" in told
    assert "at the carmaker hold 'p', not among its levels" in told
