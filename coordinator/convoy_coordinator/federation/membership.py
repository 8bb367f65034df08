"""What the model card says about the membership attacks that data holders ran at home before the release.

Every holder of claims or histories attacks the real candidate with real members and with own persons who were not trained on
(``convoy_models.home_attack``). One word of each leaves its node: *passed*, *alarm* (then nothing is released) or *not run*.
"""

from __future__ import annotations

from collections.abc import Mapping

from convoy_contracts.specification import Specification
from convoy_models.card import Measure, Text
from convoy_models.home_attack import FEWEST_ATTACKED, LEAST_PERSONS, held_back_milli

AT_HOME = Text(
    "各数据持有方以真实成员与未参与训练的自有人员在本地进行；结论由该方作出，不在 ε 范围内",
    "at home, by each data holder with real members and own persons who were not trained on; its own word, outside epsilon",
)


def attack_measures(attacks: Mapping[str, str]) -> list[Measure]:
    """Return the card's line: at how many parties an attack was run, and found nothing.

    Args:
        attacks: word by party; no alarm among them.
    """
    passed = sum(word == "passed" for word in attacks.values())
    name = Text("成员推断攻击：无警报 / 参与方", "membership inference: no alarm at / parties asked")
    return [Measure(name, f"{passed} / {len(attacks)}", AT_HOME)] if attacks else []


def attack_limits(specification: Specification, attacks: Mapping[str, str]) -> list[Text]:
    """Return what the card says where no attack was run, and why."""
    without = [party for party, word in sorted(attacks.items()) if word == "not run"]
    if not without:
        return []
    names = ", ".join(without)
    zh = f"发布前未进行成员推断攻击：{names}。该攻击至少需要 {FEWEST_ATTACKED} 名未参与训练的本方人员（理赔金额模型：有赔案者），"
    en = (
        f"No membership attack was run before the release at {names}: it needs {FEWEST_ATTACKED} persons at least of its own "
        "who were not trained on (severity: with a claim), and "
    )
    if held_back_milli(specification, len(attacks)):
        return [Text(zh + "而该方人员不足。", en + "fewer were held out there.")]
    return [
        Text(
            zh + f"而合约允许的最小群体平均每方不足 {LEAST_PERSONS} 人，因此没有任何人被留出。",
            en
            + f"the contract trains cohorts of fewer than {LEAST_PERSONS:,} persons a party, so nobody is held back for it.",
        )
    ]
