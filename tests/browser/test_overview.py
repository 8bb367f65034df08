"""The overview page in a real Chromium, in both languages.

Its own content policy switches JavaScript off (``script-src 'none'``), so what is seen here works without.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

Browse = Callable[..., subprocess.CompletedProcess[str]]


def text_of(dom: str) -> str:
    """Return what a person reads: the DOM without tags, white space joined."""
    return " ".join(re.sub(r"<[^>]+>", " ", dom).split())


@pytest.mark.parametrize(
    ("language", "tag", "sentences"),
    [
        (
            "en",
            "en",
            (
                "How does the federation stand?",
                "41 of 97 queries",
                "2.8 times the best alone",
                "ε = 4.01 with δ = 10⁻⁶",
                "cosigned by 3 of 3 witnesses",
                "convoy-audit verify evidence.zip",
                "this page reloads every 5 seconds",
            ),
        ),
        (
            "zh",
            "zh-CN",
            (
                "联邦现状如何？",
                "41 / 97 次查询",
                "最佳单独结果的 2.8 倍",
                "ε = 4.01、δ = 10⁻⁶",
                "由 3 个见证方中的 3 个见证",
                "convoy-audit verify evidence.zip",
                "本页每 5 秒刷新一次",
            ),
        ),
    ],
)
def test_the_page_says_everything_in_both_languages(
    browse: Browse, site: str, language: str, tag: str, sentences: tuple[str, ...]
) -> None:
    """Parties, contract, progress, figures, epsilon rounded up, log and the command to verify."""
    dom = browse(f"{site}/?lang={language}", "--dump-dom").stdout
    assert f'<html lang="{tag}">' in dom
    for sentence in sentences:
        assert sentence in text_of(dom)
    assert "<script" not in dom


def test_the_browser_finds_nothing_against_the_content_policy(browse: Browse, site: str) -> None:
    """No style, image or script is refused, and nothing is fetched from elsewhere."""
    said = browse(f"{site}/?lang=en", "--enable-logging=stderr", "--dump-dom").stderr
    assert "Content Security Policy" not in said
    assert "CONSOLE" not in said
    policy = httpx.get(f"{site}/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'; script-src 'none'")


def test_the_language_follows_the_browser(site: str) -> None:
    """Accept-Language decides where ?lang= does not; without either it is Chinese."""
    assert '<html lang="en">' in httpx.get(f"{site}/", headers={"Accept-Language": "en-GB"}).text
    assert '<html lang="zh-CN">' in httpx.get(f"{site}/", headers={"Accept-Language": ""}).text


def test_two_hanzi_are_drawn_differently(picture: Callable[[str], bytes]) -> None:
    """Without a CJK font every character is the same box, and no other test would notice."""
    east, west = (picture(f"data:text/html;charset=utf-8,{quote(f'<h1>{c}</h1>')}") for c in "东西")
    assert east != west, "no CJK font here: apt-get install -y fonts-wqy-microhei"


def test_the_page_is_drawn_in_both_languages(picture: Callable[..., bytes], site: str) -> None:
    """Two different pictures with something on them."""
    english, chinese = (picture(f"{site}/?lang={language}") for language in ("en", "zh"))
    assert english != chinese
    assert min(len(english), len(chinese)) > 100_000


def test_the_page_prints_on_a_few_sheets(browse: Browse, site: str, tmp_path: Path) -> None:
    """A4, no header of the browser, and not one sheet for each table."""
    file = tmp_path / "page.pdf"
    browse(f"{site}/?lang=zh", f"--print-to-pdf={file}", "--no-pdf-header-footer")
    content = file.read_bytes()
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 3
    width, height = map(float, re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", content)[0])
    assert (round(width), round(height)) == (595, 842)
