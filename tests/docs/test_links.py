"""Links between pages lead somewhere, and the commands that pages show exist."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"```[a-z]*\n(.*?)```", re.DOTALL)
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "audit/*.md",
        "models/*.md",
        "node/*.md",
        "coordinator/*.md",
        "contracts/*.md",
        "bench/**/*.md",
    )
    for path in ROOT.glob(pattern)
)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower().replace("`", "")).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("folder", sorted({str(page.parent.relative_to(ROOT)) for page in PAGES}))
def test_every_link_to_a_file_leads_somewhere(folder: str) -> None:
    """Relative links name a file that is there, and an anchor that is in it."""
    broken = []
    for page in (page for page in PAGES if page.parent == ROOT / folder):
        for target in LINK.findall(page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            other = (page.parent / name).resolve() if name else page
            if not other.exists() or (anchor and other.suffix == ".md" and anchor not in anchors(other)):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_make_targets_that_pages_show_exist() -> None:
    """``make X`` in a code block or in code marks is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    wrong = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = FENCE.findall(text)
        shown = [line for block in blocks for line in re.findall(r"^\$? ?make ([a-z][a-z-]*)", block, re.MULTILINE)]
        shown += re.findall(r"`make ([a-z][a-z-]*)", FENCE.sub("", text))
        wrong += [f"{page.relative_to(ROOT)}: make {name}" for name in shown if name not in targets]
    assert wrong == []


def test_commands_that_pages_show_exist(generate: ModuleType) -> None:
    """A line ``convoy-X y`` of a code block is a command of that program."""
    known = generate.command_names()
    groups = {name.rsplit(" ", 1)[0] for name in known}
    wrong = []
    for page in PAGES:
        for block in FENCE.findall(page.read_text(encoding="utf-8")):
            for program, words in re.findall(
                r"^(?:\$ )?(?:\.venv/bin/)?(convoy-[a-z]+)((?: [a-z][a-z-]+)*)", block, re.MULTILINE
            ):
                parts = words.split()
                tries = [" ".join([program, *parts[:n]]) for n in (1, 2)] if parts else [program]
                if not any(name in known or name in groups for name in tries):
                    wrong.append(f"{page.relative_to(ROOT)}: {program}{words}")
    assert wrong == []
