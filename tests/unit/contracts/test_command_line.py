"""``convoy-contracts`` on input that is none: the file is named, the exit code is 2, and the decision protocol is as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convoy_contracts.cli import EXIT_FAULT, EXIT_OK, EXIT_REFUSED, main

STOPPED = {"allow": False, "reasons": ["CLOCK_UNTRUSTED"], "obligations": []}
"""What FORMAT.md §6 (1a) asks for where there is no ``now``."""
NEW = [
    "new", "risk", "--uid", "urn:c", "--offer-until", "2027-04-01T00:00:00Z", "--not-before", "2027-01-01T00:00:00Z",
    "--not-after", "2028-01-01T00:00:00Z", "--party", "oem=did:web:oem@CN-SH",
    *(word for n in "abc" for word in ("--party", f"insurer=did:web:insurer-{n}@CN-SH")),
    "--party", "trustee=did:web:trustee@CN-SH",
]  # fmt: skip


def written(folder: Path, text: str, name: str = "world.json") -> str:
    """Write a file; return its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("text", ["{}", "[]", "null", "7", '{"now": "yesterday"}'])
def test_every_json_value_gets_a_decision_and_exit_code_0(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """FORMAT.md: one decision on stdout, exit code 0, also for a refusal."""
    assert main(["decide", written(tmp_path, text)]) == EXIT_OK
    told = capsys.readouterr()
    assert json.loads(told.out) == STOPPED
    assert told.err == ""


@pytest.mark.parametrize("option", [[], ["--batch"], ["--explain"], ["--exit-code"]])
def test_a_file_that_is_no_json_is_bad_input(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named on stderr, exit code 2; whoever reads stdout only still reads a refusal."""
    assert main(["decide", written(tmp_path, '{"now": '), *option]) == EXIT_FAULT
    told = capsys.readouterr()
    assert told.err.startswith("INPUT_MALFORMED: world.json: it is not JSON")
    if not option:
        assert json.loads(told.out) == STOPPED


def test_a_batch_that_is_no_array_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An array of worlds is what --batch asks for; an empty one is one."""
    assert main(["decide", written(tmp_path, "{}"), "--batch"]) == EXIT_FAULT
    assert "no array" in capsys.readouterr().err
    assert main(["decide", written(tmp_path, "[]"), "--batch"]) == EXIT_OK


@pytest.mark.parametrize("text", ["{}", "[]", "not json"])
def test_what_is_no_world_is_explained_as_malformed_input(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not as a clock to be set: no gate was reached."""
    assert main(["decide", written(tmp_path, text), "--explain", "en"]) == EXIT_FAULT
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "Refused, 1 reason(s)."
    marks = {
        line.split()[2 if "not reached" not in line else 3].rstrip(":"): line
        for line in shown
        if line[:3].strip().isdigit()
    }
    assert "REFUSED" in marks.pop("INPUT_MALFORMED")
    assert all("not reached" in line for line in marks.values())


def test_no_gate_is_shown_as_passed_behind_a_clock_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The decision ended there."""
    assert main(["decide", written(tmp_path, '{"now": "yesterday"}'), "--explain", "--exit-code"]) == EXIT_REFUSED
    shown = capsys.readouterr().out
    assert "REFUSED      CLOCK_UNTRUSTED" in shown
    assert " pass " not in shown


def test_which_of_several_files_is_broken_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In every command that reads more than one."""
    assert main(NEW) == EXIT_OK
    good, bad = written(tmp_path, capsys.readouterr().out, "good.json"), written(tmp_path, "{", "bad.json")
    keys = written(tmp_path, "{}", "keys.json")
    for words in (
        ["verify", good, "--signatures", bad, "--keys", keys], ["verify", good, "--signatures", keys, "--keys", bad],
        ["state", good, "--signatures", bad, "--keys", keys], ["state", good, "--signatures", keys, "--keys", bad],
        ["state", good, "--signatures", keys, "--keys", keys, "--events", bad], ["diff", good, bad], ["diff", bad, good],
        ["digest", bad], ["text", bad], ["catalogue", "check", bad],
    ):  # fmt: skip
        assert main(words) == EXIT_FAULT, words
        assert capsys.readouterr().err.startswith("DOCUMENT_MALFORMED: bad.json: "), words


def test_a_draft_names_both_witness_keys_of_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    """The option is given once a key; one key twice is a mistake."""
    keys = ["--witness-key", "did:web:oem=a+1+AA==", "--witness-key", "did:web:oem=b+2+BB=="]
    assert main([*NEW, *keys]) == EXIT_OK
    parties = {party["id"]: party for party in json.loads(capsys.readouterr().out)["parties"]}
    assert parties["did:web:oem"]["witnessKey"] == "a+1+AA==\nb+2+BB=="
    assert "witnessKey" not in parties["did:web:insurer-a"]
    for wrong in (keys[:2] * 2, ["--witness-key", "did:web:oem"]):
        assert main([*NEW, *wrong]) == EXIT_FAULT
        assert "--witness-key" in capsys.readouterr().err
