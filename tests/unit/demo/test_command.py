"""The demo's command and folder: what it refuses, and what it never removes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convoy_demo import cli
from convoy_demo.api import DemoFailed
from convoy_demo.places import Places
from convoy_demo.ports import free_ports
from convoy_demo.run import demo
from convoy_demo.scenario import Scenario


def test_reset_removes_a_demo_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with anything of somebody else stays, also an empty one; what is not there is said not to be there."""
    mine = tmp_path / "mine"
    (mine / "embedded" / "coordinator").mkdir(parents=True)
    (mine / "notes.txt").write_text("precious", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for folder in (mine, tmp_path / "empty", mine / "notes.txt"):
        assert cli.main(["reset", "--home", str(folder)]) == 1
        assert "Nothing was removed" in capsys.readouterr().err
        assert folder.exists()
    assert cli.main(["reset", "--home", str(tmp_path / "gone")]) == 0
    assert "There is no" in capsys.readouterr().out
    (mine / "notes.txt").unlink()
    assert cli.main(["reset", "--home", str(mine)]) == 0
    assert not mine.exists()


@pytest.mark.parametrize("drivers", ["0", "-5", "5", "many", "1e6"])
def test_a_population_that_cannot_be_trained_on_is_refused_at_once(
    drivers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the range, before anything is founded."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["run", f"--drivers={drivers}"])
    assert ended.value.code == 2
    assert "from 1,000 to 2,000,000" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Below a file."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert cli.main(["run", "--home", str(tmp_path / "file"), "--no-wait"]) == 1
    assert "Name another --home" in capsys.readouterr().out


def test_another_population_than_the_founded_one_is_not_taken_silently(tmp_path: Path) -> None:
    """The ledgers belong to the persons that were generated first."""
    places = Places(tmp_path, "embedded")
    places.ready.parent.mkdir(parents=True)
    places.ready.write_text(json.dumps({"drivers": 100_000, "seed": 1, "contracts": {}}), encoding="utf-8")
    with (
        pytest.raises(DemoFailed, match="drivers 100000, not 50000"),
        demo(tmp_path, "embedded", Scenario(drivers=50_000), {"drivers": 50_000}),
    ):
        pass


def test_free_ports_differ_and_lie_below_those_of_outgoing_connections() -> None:
    """Whoever starts several servers gets several ports."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)
