"""The choice between zh and en, and the sentences in both."""

from __future__ import annotations

import re

import pytest
from starlette.requests import Request

from convoy_coordinator.console.wording import EN, ZH
from convoy_coordinator.language import choose_language
from convoy_coordinator.problems import CATALOGUE


def request(query: str = "", accept: str = "") -> Request:
    """Return a request with a query string and an Accept-Language header."""
    headers = [(b"accept-language", accept.encode())]
    return Request({"type": "http", "query_string": query.encode(), "headers": headers})


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("lang=zh", "en", "zh"),
        ("lang=en", "zh-CN", "en"),
        ("lang=fr", "zh-CN", "zh"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "fr, en;q=0.7, zh;q=0.3", "en"),
        ("", "en;q=0, zh;q=0.1", "zh"),
        ("", "en;q=x", "en"),
        ("", "", "en"),
    ],
)
def test_the_query_wins_over_the_header_over_the_default(query: str, accept: str, expected: str) -> None:
    """?lang= is first, then the header by weight, then the caller's default."""
    assert choose_language(request(query, accept)) == expected


def test_both_languages_say_the_same_things() -> None:
    """Every key is in both lists, with the same placeholders, and no sentence is empty."""
    assert set(EN) == set(ZH)
    for key in EN:
        assert set(re.findall(r"{(\w+)}", EN[key])) == set(re.findall(r"{(\w+)}", ZH[key])), key
        assert EN[key].strip()
        assert ZH[key].strip()


def test_every_problem_has_a_title_and_a_fix_in_both_languages() -> None:
    """A refusal says what happened and what to do, in zh and en."""
    for code, kind in CATALOGUE.items():
        assert code == code.upper()
        assert 400 <= kind.status < 600
        for sentences in (kind.title, kind.fix):
            assert set(sentences) == {"en", "zh"}
            assert all(sentences.values())
        assert re.search(r"[\u4e00-\u9fff]", kind.title["zh"] + kind.fix["zh"])
