"""A refusal says the same over HTTP, over gRPC and on the command line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from convoy_contracts.cli import main
from convoy_contracts.problems import GRPC, PROBLEMS
from convoy_contracts.wire.statuses import unpack
from convoy_coordinator.channel.calls import Calls
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.problems import CATALOGUE, problem_document


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
