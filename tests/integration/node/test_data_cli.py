"""``convoy-node data``: from a partner's own columns to rows that fit the contract, by the commands alone."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from convoy_node.cli import app
from convoy_node.errors import DatasetRefused, NodeError

ROWS = 60


def run(*arguments: object) -> tuple[int, Any]:
    """Run a command with --json; a refusal comes out as its exception."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def write(path: Path, columns: Mapping[str, Sequence[object]]) -> Path:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([tuple(columns), *zip(*columns.values(), strict=True)])
    return path


@pytest.fixture
def homes(prepared, tmp_path: Path) -> Path:
    """Folders of every party, with signed contracts."""
    shutil.copytree(prepared.folder, tmp_path / "homes")
    return tmp_path / "homes"


def use(home: Path, source: Path, mapping: str) -> None:
    """Name source and mapping in node.toml, as the command says."""
    shutil.copy(source, home / "data" / source.name)
    toml = (home / "node.toml").read_text(encoding="utf-8")
    toml = toml.replace('source = "data/data.parquet"', f'source = "data/{source.name}"\nmapping = "{mapping}"')
    (home / "node.toml").write_text(toml, encoding="utf-8")


def test_vehicle_signals_by_their_covesa_names_become_the_oems_fields(homes: Path, tmp_path: Path) -> None:
    """Profile, map, look at the doubtful lines, check: all with the contract that was signed."""
    home = homes / "oem"
    source = write(tmp_path / "signals.csv", {
        "Vehicle.Driver.Identifier.Subject": [f"D{n}" for n in range(ROWS)],
        "Vehicle.TraveledDistance": [8 + n % 30 for n in range(ROWS)],
        "Vehicle.Chassis.Brake.IsDriverEmergencyBrakingDetected": [n % 7 for n in range(ROWS)],
        "Vehicle.Acceleration.Longitudinal": [n % 5 for n in range(ROWS)],
        "Vehicle.Speed": [0.01 * (n % 20) for n in range(ROWS)],
        "night_ratio": [0.2] * ROWS,
        "city_share": [0.5] * ROWS,
        "Vehicle.Driver.DistractionLevel": [1.5] * ROWS,
        "Vehicle.ADAS.ObstacleDetection.IsWarning": [2.5] * ROWS,
        "Vehicle.VIN": [f"SECRETVIN{n}" for n in range(ROWS)],
    })  # fmt: skip
    code, profile = run("data", "profile", "--home", home, "--source", source)
    assert code == 0
    assert {p["name"]: (p["rows"], p["empty"]) for p in profile}["Vehicle.TraveledDistance"] == (ROWS, 0)
    assert "SECRETVIN" not in json.dumps(profile)
    assert next(p for p in profile if p["name"] == "Vehicle.VIN")["low"] is None
    code, made = run("data", "map", "--home", home, "--source", source)
    found = {p["field"]: p["column"] for p in made["proposals"]}
    assert found["person_id"] == "Vehicle.Driver.Identifier.Subject"
    assert found["km_1000"] == "Vehicle.TraveledDistance"
    assert found["collision_warnings_1000km"] == "Vehicle.ADAS.ObstacleDetection.IsWarning"
    assert "Vehicle.VIN" not in found.values()
    assert all(p["likeness"] >= 0.9 for p in made["proposals"])
    with pytest.raises(NodeError) as refused:
        run("data", "map", "--home", home, "--source", source)
    assert refused.value.code == "FILE_EXISTS"
    use(home, source, "mapping.toml")
    code, checked = run("data", "check", "--home", home)
    assert (code, checked["rows"], checked["faults"]) == (0, ROWS, [])


def test_charge_detail_records_by_their_ocpi_names_become_one_history_a_person(homes: Path, tmp_path: Path) -> None:
    """One row a session: --grouped has the engine collect each person's sites."""
    home = homes / "charging"
    sites = ["site-001", "site-002", "site-003"]
    source = write(tmp_path / "cdrs.csv", {
        "cdr_id": [f"C{n}" for n in range(ROWS)],
        "cdr_token.uid": [f"T{n // 4}" for n in range(ROWS)],
        "cdr_location.id": [sites[n % 3] for n in range(ROWS)],
        "total_energy": [20.5] * ROWS,
    })  # fmt: skip
    code, made = run("data", "map", "--home", home, "--source", source, "--grouped", "--to", home / "ocpi.toml")
    assert code == 0
    text = tomllib.loads((home / "ocpi.toml").read_text(encoding="utf-8"))
    assert (text["person"], text["fields"]["items"], text["grouped"]) == (
        '"cdr_token.uid"', 'list("cdr_location.id")', True,
    )  # fmt: skip
    assert [p["field"] for p in made["proposals"]] == ["person_id", "items"]
    use(home, source, "ocpi.toml")
    code, checked = run("data", "check", "--home", home)
    assert (code, checked["rows"], checked["faults"]) == (0, ROWS // 4, [])


def policies(**change: Sequence[object]) -> dict[str, Sequence[object]]:
    """Return a CRM export with Chinese and English headings."""
    return {
        "客户号": [f"K{n}" for n in range(ROWS)],
        "年龄": [20 + n % 60 for n in range(ROWS)],
        "licence_gap": [1.0] * ROWS,
        "无赔款优待系数": [0.85] * ROWS,
        "veh_power": [110] * ROWS,
        "车龄": [n % 12 for n in range(ROWS)],
        "ln_density": [7.5] * ROWS,
        "annual_km_declared": [15.0] * ROWS,
        "garage_yn": [("yes", "no")[n % 2] for n in range(ROWS)],
        "出险次数": [n % 3 for n in range(ROWS)],
        "policy_years": [0.9] * ROWS,
    } | change


def test_a_crm_export_with_chinese_headings_is_mapped_and_doubtful_lines_are_marked(
    homes: Path, tmp_path: Path
) -> None:
    """What is not sure stands with a question mark until a person has looked."""
    home = homes / "insurer-a"
    columns = policies()
    columns["garge_info"] = columns.pop("garage_yn")
    source = write(tmp_path / "policies.csv", columns)
    _, made = run("data", "map", "--home", home, "--source", source)
    sure = {p["field"]: p["column"] for p in made["proposals"] if p["likeness"] >= 0.9}
    assert (sure["person_id"], sure["driver_age"], sure["claim_count"]) == ("客户号", "年龄", "出险次数")
    assert "garage" not in sure
    path = home / "mapping.toml"
    (line,) = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("garage =")]
    assert "# ?" in line
    use(home, source, "mapping.toml")
    code, checked = run("data", "check", "--home", home)
    assert (code, checked["faults"]) == (0, [])


def test_check_tells_every_mismatch_at_once_and_no_value(homes: Path, tmp_path: Path) -> None:
    """Exit code 1; column, number of rows and fix for each; nothing of a row."""
    home = homes / "insurer-b"
    columns = policies(
        客户号=["SAME", "SAME", *(f"K{n}" for n in range(2, ROWS))],
        出险次数=[-1, *([0] * (ROWS - 1))],
        policy_years=[0, *([1.0] * (ROWS - 1))],
        garage_yn=["SECRETVALUE", *(["no"] * (ROWS - 1))],
        年龄=["", *([40] * (ROWS - 1))],
        veh_power=["strong"] * ROWS,
    )
    del columns["车龄"]
    columns["wagon_years"] = [3] * ROWS
    source = write(tmp_path / "bad.csv", columns)
    run("data", "map", "--home", home, "--source", source)
    path = home / "mapping.toml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('vehicle_age = "?"', 'vehicle_age_wrong = "1"'), encoding="utf-8")
    use(home, source, "mapping.toml")
    code, checked = run("data", "check", "--home", home)
    assert code == 1
    told = {(fault["column"], fault["cause"]) for fault in checked["faults"]}
    assert told >= {
        ("person_id", "1 rows repeat a person."),
        ("claim_count", "1 rows are negative."),
        ("exposure_years", "1 rows are zero."),
        ("driver_age", "1 rows are empty."),
        ("vehicle_power", "holds VARCHAR, not numbers."),
        ("vehicle_age", "is missing."),
    }
    assert any(column == "garage" for column, _ in told)
    assert all(fault["fix"] for fault in checked["faults"])
    assert "SECRETVALUE" not in json.dumps(checked)
    shown = CliRunner().invoke(app, ["data", "check", "--home", str(home)])
    assert shown.exit_code == 1
    assert shown.stdout.splitlines()[-1].startswith("Next: ")


def test_schema_shows_what_the_contracts_expect_and_a_contract_can_be_named_before_it_is_signed(
    homes: Path, prepared, tmp_path: Path
) -> None:
    """So that columns are mapped before anybody signs."""
    _, signed = run("data", "schema", "--home", homes / "insurer-c")
    text = tmp_path / "risk.json"
    text.write_text(prepared.texts["risk"], encoding="utf-8")
    shutil.rmtree(homes / "insurer-c" / "contracts")
    (homes / "insurer-c" / "contracts").mkdir()
    with pytest.raises(NodeError) as refused:
        run("data", "schema", "--home", homes / "insurer-c")
    assert refused.value.code == "CONTRACT_UNKNOWN"
    _, named = run("data", "schema", "--home", homes / "insurer-c", "--contract", text)
    assert named == signed
    assert {"name": "garage", "kind": "text", "levels": ["no", "yes"]}.items() <= next(
        column for column in named if column["name"] == "garage"
    ).items()


def test_a_source_that_is_not_there_is_named(homes: Path, tmp_path: Path) -> None:
    """One refusal with its fix, for every command that reads rows."""
    for command in ("profile", "check"):
        with pytest.raises(DatasetRefused) as refused:
            run("data", command, "--home", homes / "oem", "--source", tmp_path / "nothing.parquet")
        assert refused.value.faults[0].fix
