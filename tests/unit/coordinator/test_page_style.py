"""The page's style sheet: contrast, focus, and nothing from elsewhere."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

CSS = files("convoy_coordinator.console").joinpath("static/console.css").read_text(encoding="utf-8")
COLOURS = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", CSS))


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["ground", "card"])
@pytest.mark.parametrize("text", ["ink", "soft", "accent", "good", "bad", "wait"])
def test_every_text_colour_is_readable_on_every_ground(text: str, ground: str) -> None:
    """At least 4.5 to 1, WCAG 2.2 AA for text of any size."""
    assert contrast(COLOURS[text], COLOURS[ground]) >= 4.5


def test_focus_is_visible() -> None:
    """Whoever goes by keyboard sees where, with at least 3 to 1 against the ground."""
    assert ":focus-visible" in CSS
    assert "outline: none" not in CSS
    assert contrast(COLOURS["focus"], COLOURS["ground"]) >= 3


def test_nothing_comes_from_elsewhere() -> None:
    """No import and no address in the style sheet."""
    assert "@import" not in CSS
    assert "url(" not in CSS
