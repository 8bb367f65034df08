"""A refusal says the same over HTTP, over gRPC and on the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.cli import main
from convoy_contracts.problems import GRPC, PROBLEMS
from convoy_contracts.wire.statuses import unpack
from convoy_coordinator.channel.calls import Calls
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.problems import CATALOGUE, problem_document
from convoy_node.cli import main as node


class Noted:
    """Where refusals are written down, kept in memory."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def note(self, code: str, party: str | None, method: str) -> None:
        """Keep a refusal."""
        assert method == "Partner.State"
        assert party == "did:web:oem.example"
        self.codes.append(code)


class Call:
    """The side of a gRPC call that a refusal is told to."""

    def __init__(self) -> None:
        self.told: tuple[Any, str, Any] | None = None

    async def abort(self, status: Any, message: str, trailing: Any) -> None:
        """Keep what ends the call."""
        self.told = (status, message, trailing)


@pytest.mark.parametrize("code", sorted(CATALOGUE))
def test_http_and_grpc_tell_the_same(code: str) -> None:
    """Code, party, cause, title, meaning and fix in both languages, faults, and statuses that stand for each other."""
    problem = Problem(code, "what happened", party="did:web:oem.example", faults=[Fault("/x", "wrong")])
    noted, call = Noted(), Call()
    calls = Calls(None, noted)  # type: ignore[arg-type]
    asyncio.run(calls.refuse(call, "Partner.State", problem))
    calls.close()
    assert call.told is not None
    status, message, trailing = call.told
    told = unpack(trailing)
    assert told is not None
    english, chinese = problem_document(problem, "en"), problem_document(problem, "zh")
    assert (told.code, told.facts["party"], told.facts["cause"]) == (code, english["party"], english["cause"])
    for member in ("title", "meaning", "fix"):
        assert told.facts[f"{member}_en"] == english[member]
        assert told.facts[f"{member}_zh"] == chinese[member]
    assert told.faults == ("/x: wrong",)
    assert status.name == GRPC[english["status"]]
    assert message == f"{code}: what happened"
    assert english["type"] == f"/problems/{code}"


def test_the_command_line_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    """Every sentence of the document stands on the page that the command prints, in both languages."""
    for code, kind in CATALOGUE.items():
        for language in ("en", "zh"):
            assert main(["problem", code, "--language", language]) == 0
            text = capsys.readouterr().out
            assert all(sentence[language] in text for sentence in (kind.title, kind.meaning, kind.fix))  # type: ignore[index]
            assert f"HTTP {kind.status}, gRPC {PROBLEMS[code].grpc}" in text


def test_a_file_that_is_not_there_has_a_code_as_well(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The operating system's error is told like every other refusal, in both languages."""
    assert main(["digest", str(tmp_path / "nothing.json")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("FILE_UNREADABLE: ")
    assert PROBLEMS["FILE_UNREADABLE"].fix_zh in told


def test_a_refusal_of_a_node_is_json_where_json_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the coordinator's commands tell it: code, party, cause and fix; exit code 1."""
    monkeypatch.setattr("sys.argv", ["convoy-node", "status", "--home", str(tmp_path), "--json"])
    with pytest.raises(SystemExit) as ended:
        node()
    assert ended.value.code == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "HOME_REFUSED"
    assert set(error) >= {"code", "party", "cause", "fix"}
    assert all(error[name] for name in ("cause", "fix"))
