"""One page of the risk results that are there: ``bench/results/risk-fremtpl2.md`` from ``risk-fremtpl2-*.json``.

python bench/risk_page.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
MARKETS = ("zones", "iid5", "iid10", "iid50", "grouped")
RIVALS = (
    "LightGBM, every insurer alone, on its own", "LightGBM, local models averaged", "LightGBM, pooled",
    "pooled GLM, same cells", "pooled GLM3 (Wuethrich & Merz)",
)  # fmt: skip
HEAD = """# Risk on freMTPL2: test deviance x 10^-2 (lower is better)

Made by `python bench/risk_page.py` from `risk-fremtpl2-*.json`; each of them by
`python bench/risk.py --dataset bench/data/fremtpl2-MARKET.yaml --epsilon 4 --json bench/results/risk-fremtpl2-MARKET.json`.

Split of Wuethrich & Merz, except *grouped*: rows with the same nine rating factors kept together (35 % of the usual test rows have a twin
among the learning rows, which favours whoever remembers). Unit of privacy: one policy row, delta 1e-6, one run, towards the
coordinator and every recipient of the model. Noise: what is really added under the collusion-robust rule, simulated as a
Gaussian, mean (sd) over ten draws;
rows *through the real apps* draw the nodes' exact discrete noise.
Settings were chosen inside the learning rows (`choose-fremtpl2.json`, `models/LOG.md`).
No rival is private; all are trained in the same run.
"""


def _cell(row: dict[str, Any]) -> str:
    spread = f" ({row['deviance_x100_sd']:.3f})" if row["runs"] > 1 else ""
    return f"{row['deviance_x100']:.3f}{spread}"


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return the page; found: documents of ``risk.py`` by market."""
    names: list[str] = []
    for document in found.values():
        for row in document["rows"]:
            if row["model"] not in names and not row["model"].endswith("on all test rows"):
                names.append(row["model"])
    lines = [HEAD, "| model | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
    for name in names:
        rows = {market: {r["model"]: r for r in document["rows"]} for market, document in found.items()}
        lines.append(f"| {name} | " + " | ".join(_cell(rows[m][name]) if name in rows[m] else "" for m in found) + " |")
    for what, member, digits in (("Gini", "gini", 3), ("Deviance per exposure year", "deviance_per_year", 4)):
        lines += ["", f"{what}:", "", "| model | " + " | ".join(found) + " |", "|---|" + "---|" * len(found)]
        for name in names:
            values = [next((r[member] for r in d["rows"] if r["model"] == name), None) for d in found.values()]
            lines.append(f"| {name} | " + " | ".join("" if v is None else f"{v:.{digits}f}" for v in values) + " |")
    lines += ["", "Model minus rival on the same test rows, with the 95 % paired bootstrap interval:", ""]
    for market, document in found.items():
        rivals = [rival for rival in RIVALS if any(d["rival"] == rival for d in document["differences"])]
        lines += [f"**{market}**", "", "| model | " + " | ".join(rivals) + " |", "|---|" + "---|" * len(rivals)]
        for model in dict.fromkeys(d["model"] for d in document["differences"] if d["model"].startswith("tables")):
            by_rival = {d["rival"]: d for d in document["differences"] if d["model"] == model}
            cells = [
                f"{d['difference_x100']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]"
                for d in map(by_rival.__getitem__, rivals)
            ]
            lines.append(f"| {model} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    """Write the page of the results that are there."""
    places = {market: RESULTS / f"risk-fremtpl2-{market}.json" for market in MARKETS}
    found = {m: json.loads(place.read_text(encoding="utf-8")) for m, place in places.items() if place.is_file()}
    (RESULTS / "risk-fremtpl2.md").write_text(page(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
