"""One problem of the catalogue: what a user reads about a code, in English and Chinese, wherever it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Area = Literal["decisions", "contracts", "joining", "coordinator", "log", "node", "doctor", "models"]
Acts = Literal["caller", "author", "parties", "node", "coordinator", "witness", "reader"]
Language = Literal["en", "zh"]

AREAS: Final[Mapping[Area, tuple[str, str]]] = {
    "decisions": ("Decisions of a node", "节点的决定"),
    "contracts": ("Drafting, signing, living under a contract", "合约的起草、签署与存续"),
    "joining": ("Joining, leaving, the partner channel", "加入、退出与参与方通道"),
    "coordinator": ("The coordinator", "协调方"),
    "log": ("The log and its witnesses", "日志与见证方"),
    "node": ("A node", "节点"),
    "doctor": ("Findings of convoy-node doctor", "convoy-node doctor 的检查结果"),
    "models": ("Computations and releases", "计算与发布"),
}
ACTS: Final[Mapping[Acts, tuple[str, str]]] = {
    "caller": ("whoever asked", "请求方"),
    "author": ("whoever drafts the contract", "合约起草方"),
    "parties": ("the parties together", "合约各方"),
    "node": ("the node's operator", "节点运营方"),
    "coordinator": ("the coordinator's operator", "协调方运营方"),
    "witness": ("the witness's operator", "见证方运营方"),
    "reader": ("whoever verifies", "核验者"),
}
"""Who puts a problem right. Whom it concerns stands in the problem itself, as ``party``."""
GRPC: Final[Mapping[int, str]] = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 405: "UNIMPLEMENTED",
    409: "FAILED_PRECONDITION", 410: "NOT_FOUND", 412: "FAILED_PRECONDITION", 413: "RESOURCE_EXHAUSTED",
    422: "INVALID_ARGUMENT", 428: "FAILED_PRECONDITION", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 503: "UNAVAILABLE",
}  # fmt: skip
"""The gRPC status that stands for an HTTP status, so that both sides say the same."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One code. ``status`` is its HTTP status; None where it is told in a run's reasons or on a command line only."""

    code: str
    area: Area
    acts: Acts
    status: int | None
    title: str
    title_zh: str
    cause: str
    cause_zh: str
    fix: str
    fix_zh: str

    @property
    def grpc(self) -> str | None:
        """The name of its gRPC status, if it has one."""
        return None if self.status is None else GRPC[self.status]

    def facts(self) -> dict[str, str]:
        """Return its sentences as members of a problem document that is told in both languages."""
        return {
            "title": self.title, "titleZh": self.title_zh, "meaning": self.cause, "meaningZh": self.cause_zh,
            "fix": self.fix, "fixZh": self.fix_zh,
        }  # fmt: skip

    def page(self, language: Language) -> str:
        """Return what a user reads, as Markdown."""
        zh = language == "zh"
        title, cause, fix = (self.title_zh, self.cause_zh, self.fix_zh) if zh else (self.title, self.cause, self.fix)
        at = 1 if zh else 0
        told = (
            f"HTTP {self.status}, gRPC {self.grpc}"
            if self.status
            else ("运行原因或命令行" if zh else "a run's reasons, a command")
        )
        names = (
            ("原因", "处理", "由谁处理", "出现于", "告知方式")
            if zh
            else ("Cause", "Fix", "Who acts", "Where", "Told as")
        )
        values = (cause, fix, ACTS[self.acts][at], AREAS[self.area][at], told)
        colon = "：" if zh else ": "
        return "\n".join(
            [title, "", *(f"- **{name}**{colon}{value}" for name, value in zip(names, values, strict=True)), ""]
        )


def listed(*problems: Problem) -> Mapping[str, Problem]:
    """Return problems by code.

    Raises:
        ValueError: a code stands twice.
    """
    made = {problem.code: problem for problem in problems}
    if len(made) != len(problems):
        codes = [problem.code for problem in problems]
        raise ValueError(f"a code stands twice: {', '.join(sorted({code for code in codes if codes.count(code) > 1}))}")
    return made
