"""The text for people: complete in both languages, and bound to the document by digest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from convoy_contracts.canonical import canonical_bytes
from convoy_contracts.cli import EXIT_FAULT, EXIT_OK, main
from convoy_contracts.document import Contract
from convoy_contracts.lawyers import LANGUAGES, bind_text, render, text_digest, text_faults
from convoy_contracts.testing import example_document


def parsed(document: dict[str, Any]) -> Contract:
    """A contract from JSON values."""
    return Contract.parse(canonical_bytes(document))


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[tuple[str | int, ...], Any]]:
    """Every place of a document with its value."""
    if isinstance(value, dict):
        return [leaf for name, item in value.items() for leaf in leaves(item, (*path, name))]
    if isinstance(value, list):
        return [leaf for n, item in enumerate(value) for leaf in leaves(item, (*path, n))]
    return [(path, value)]


NOT_SAID = {"schema", "offerNonce", "vocab", "specification", "legalText"}
"""Members that are for machines: form, freshness, and what a digest stands for."""


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_member_that_a_decision_reads_is_said(language: Any) -> None:
    """Change any value, and the text changes: two contracts that decide differently read differently."""
    document = example_document()
    text = render(parsed(document), language)
    for path, value in leaves(document):
        if NOT_SAID & set(path):
            continue
        changed = json.loads(json.dumps(document))
        here: Any = changed
        for step in path[:-1]:
            here = here[step]
        new = {str: f"{value}-x", int: 7_777_777, bool: not value}.get(type(value))
        if isinstance(value, str) and value[:4].isdigit() and "T" in value:
            new = value.replace("T00:00:00", "T00:00:01")
        if path[-1] in ("step",):
            new = "0.77"
        if path[-1] == "effective":
            new = "next-round" if value == "immediate" else "immediate"
        if path[-1] == "digest":
            continue  # belongs to its specification
        here[path[-1]] = new
        assert render(parsed(changed), language) != text, path


def test_the_digests_of_both_texts_are_bound_and_a_change_unbinds_them() -> None:
    """A signature over the document covers the sentences as well."""
    document = example_document()
    bound = bind_text(parsed(document), document)
    contract = parsed(bound)
    assert text_faults(contract) == []
    assert contract.legalText is not None
    assert contract.legalText.prevails == "zh-CN"
    for language in LANGUAGES:
        assert contract.legalText.digests[language] == text_digest(render(contract, language))
    bound["limits"] = bound["limits"] | {"maxRoundSeconds": 1}
    assert len(text_faults(parsed(bound))) == 2
    assert text_faults(parsed(document)) == ["no text for people is bound"]


def test_a_text_of_ones_own_is_checked_against_what_is_bound() -> None:
    """A lawyer's own wording may be bound in place of ours."""
    document = example_document()
    own = {"zh-CN": "合约正文\n", "en": "The contract\n"}
    digests = {language: text_digest(text) for language, text in own.items()}
    contract = parsed(document | {"legalText": {"digests": digests, "prevails": "en"}})
    assert text_faults(contract, own) == []
    assert len(text_faults(contract)) == 2
    assert len(text_faults(contract, own | {"en": "The contract"})) == 1


def test_the_command_prints_binds_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 where the text is not the one that is bound."""
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(example_document(), ensure_ascii=False), encoding="utf-8")
    assert main(["text", str(path), "--lang", "en"]) == EXIT_FAULT
    assert "TEXT_NOT_BOUND" in capsys.readouterr().err
    assert main(["text", str(path), "--bind"]) == EXIT_OK
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["text", str(path)]) == EXIT_OK
    assert "隐私预算" in capsys.readouterr().out
