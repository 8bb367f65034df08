"""The gate of a recommender that is trained step by step: its hold-out, what operators say, and what the card tells.

A gate that stays shut raises, as in ``evaluation``: the run ends as *failed*, every node settles, nothing is published.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convoy_contracts.specification import TowersSpecification
from convoy_coordinator.federation.assignment import Assignment
from convoy_models.card import Measure, Text
from convoy_models.holdout import Word
from convoy_models.recommend.judged import Lists, lists_gate

HOLDOUT = Text(
    "未参与训练的同意客户（留出样本），差分隐私求和，计入本次 ε",
    "consenting customers held out of training, noisy sums, inside this run's epsilon",
)
AT_HOME = Text(
    "各充电运营商自有留出客户，在本地比较；结论由该公司作出，不在 ε 范围内",
    "each charging operator's own held-out customers, compared at home; its own decision, outside epsilon",
)


@dataclass(frozen=True, slots=True)
class ListsJudged:
    """A recommender's hold-out, and what each operator said after comparing it with what it can do alone and attacking it."""

    lists: Lists
    words: Mapping[str, Word]
    attacks: Mapping[str, str]

    def figures(self) -> dict[str, Any]:
        """Return the figures as JSON: what the run's page and the release show."""
        lists = self.lists
        return {
            "unit": "share of held-out customers whose hidden item is in the list; noisy sums, inside the run's epsilon",
            "persons": round(lists.persons),
            "personal": round(lists.hit_personal, 4),
            "general": round(lists.hit_general, 4),
            "gain": round(lists.gain, 4),
            "gainSd": round(lists.gain_sd, 4),
            "againstAlone": dict(sorted(self.words.items())),
        }

    def measures(self, length: int) -> list[Measure]:
        """Return the model card's lines. length: of the lists."""
        lists, far = self.lists, 1.96 * self.lists.gain_sd
        worse = sum(word == "worse" for word in self.words.values())
        return [
            Measure(
                Text(
                    f"隐藏项目出现在前 {length} 名：个性化列表", f"hidden item among the first {length}, personal list"
                ),
                f"{100 * lists.hit_personal:.1f} %",
                HOLDOUT,
            ),
            Measure(
                Text(
                    f"隐藏项目出现在前 {length} 名：通用列表（热门）",
                    f"hidden item among the first {length}, general list (popularity)",
                ),
                f"{100 * lists.hit_general:.1f} %",
                HOLDOUT,
            ),
            Measure(
                Text("个性化的增益（百分点）", "gain of the personal list, points"),
                f"{100 * lists.gain:+.1f} ({100 * (lists.gain - far):+.1f} … {100 * (lists.gain + far):+.1f}, 95 %)",
                HOLDOUT,
            ),
            Measure(
                Text("认为不如自己单独模型的充电运营商", "charging operators that found it worse than their own model"),
                f"{worse} / {len(self.words)}",
                AT_HOME,
            ),
        ]


def check_lists(run: Assignment, judged: ListsJudged) -> None:
    """Refuse a recommender that is not better than the general list, or worse than alone for everybody.

    Raises:
        GateRefused: UTILITY_GATE, with the figures.
    """
    spec = run.specification
    if isinstance(spec, TowersSpecification):
        lists_gate(judged.lists, judged.words, spec.test.confidenceMilli / 1000).check()
