"""Write ``bench/results/README.md``: what each benchmark last said, with the command that says it again.

``python bench/report.py`` reads the JSON files beside the page and nothing else; a figure that is on the page is in a file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
Figures = Mapping[str, Any]


def main() -> int:
    """Write the page."""
    lines = [
        "# Results",
        "",
        "Written by `python bench/report.py` from the files beside this page. Two cores, 24 GiB; both sides of a comparison ran in one go,",
        "so the ratios say more than the seconds. Epsilon is per person at delta 1e-6, for one run, towards the coordinator and every",
        "recipient of the model.",
        "",
        "| file | command | what it said |",
        "|---|---|---|",
    ]
    for name, command, say in ROWS:
        file = RESULTS / f"{name}.json"
        if file.exists():
            told = say(json.loads(file.read_text(encoding="utf-8")))
            lines.append(f"| [{name}]({name}.json) | `{command}` | {told} |")
    lines += ["", "## freMTPL2, mean Poisson deviance x 100 on the test rows (lower is better)", ""]
    lines += risk_table()
    (RESULTS / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def risk_table() -> list[str]:
    """Return the models of every split side by side."""
    splits = {
        "zones": "five region zones",
        "iid5": "5 equal",
        "iid10": "10 equal",
        "iid50": "50 equal",
        "grouped": "by rating factor (other test rows)",
    }
    columns: dict[str, dict[str, float]] = {}
    for split in splits:
        file = RESULTS / f"risk-fremtpl2-{split}.json"
        if file.exists():
            rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
            columns[split] = {row["model"]: row["deviance_x100"] for row in rows}
    models = [
        "null (one rate)",
        "pooled GLM3 (Wuethrich & Merz)",
        "every insurer alone, on its own",
        "joint at epsilon 4",
        "LightGBM, every insurer alone, on its own",
        "LightGBM, local models averaged",
        "tables at epsilon 1",
        "tables at epsilon 4",
        "tables without DP",
        "LightGBM, pooled",
    ]
    lines = [f"| model | {' | '.join(splits[split] for split in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for model in models:
        cells = [f"{found[model]:.3f}" if model in found else "" for found in columns.values()]
        bold = "**" if model.startswith("tables at") else ""
        lines.append(f"| {bold}{model}{bold} | {' | '.join(cells)} |")
    lines += [
        "",
        "*tables* is `risk-pairs/1`: exact tables of one and two rating factors from LOCAL sums, mean of ten draws of the noise.",
    ]
    lines += ["*joint* is `risk-towers/1`, carmaker and insurers. Not private: everything else."]
    return lines


def _audit(d: Figures) -> str:
    met = sum(1 for target in d["targets"].values() if target["met"])
    missed = [f"{name} {t['measured']} (bar {t['bar']})" for name, t in d["targets"].items() if not t["met"]]
    tree, locked = d["tree"]["ratios_to_pymerkle"], d["postgresql"]["ratio_to_locked_chain"]
    return (
        f"{met} of {len(d['targets'])} bars met{': not ' + '; '.join(missed) if missed else ''}. "
        f"Tree {min(tree.values())}-{max(tree.values())} x pymerkle; PostgreSQL "
        f"{min(locked.values())}-{max(locked.values())} x a locked chain"
    )


def _kills(d: Figures) -> str:
    return "; ".join(
        f"{name}: {d[name]['kills']} kill -9, {d[name]['acknowledged']} acknowledged entries, none lost"
        for name in ("sqlite", "postgresql")
    )


def _decide(d: Figures) -> str:
    found = d["results"]
    goals = d["goals_ms"]
    return (
        ", ".join(f"{name} {found[name]['p50_ms']} ms (goal {goals[name]})" for name in goals) + "; four parties, p50"
    )


def _register(d: Figures) -> str:
    ours, plain = d["ours"], d["plain_table"]
    return (
        f"{d['persons']:,} persons: withdrawal p99 {ours['withdrawal']['p99_ms']} ms, epoch root {ours['epoch_root_s']} s, "
        f"cohort {ours['cohort_s']} s, peak {ours['memory_mib']['peak']:.0f} MiB; "
        f"a plain table: {plain['epoch_root_s']} s and {plain['cohort_s']} s"
    )


def _population(d: Figures) -> str:
    found = d["contestants"]
    parts = [f"{name}: D2 {x['d2']['mean']:.2f} %, Gini {x['gini']['mean']:.3f}" for name, x in found.items()]
    audit = [
        f"{name.replace(' OEM data', '')} {x['ratio']:.3f} ± {x['standard error']:.3f}"
        for name, x in d["observed / expected under 25"].items()
        if name.startswith("epsilon")
    ]
    return "; ".join(parts) + "; observed / expected under 25, OEM data: " + "; ".join(audit)


def _severity(d: Figures) -> str:
    world, real = d["generated world"], d["freMTPL2, five zones"]
    return "; ".join(
        f"{name}: one mean {x['one mean']}, insurers alone {x['insurers alone']['mean']}, joint at epsilon 4 "
        f"{x['joint, epsilon 4']['deviance']}, "
        f"pooled GLM {x['pooled GLM, no privacy']} (Gamma deviance)"
        for name, x in (("generated", world), ("freMTPL2", real))
    )


def _dpsgd(d: Figures) -> str:
    found = d["large batches"]
    return (
        f"batches from {found['from']:,}: a private step takes {found['median']} x a plain one (worst {found['worst']})"
    )


def _protocol(d: Figures) -> str:
    secure, local = d["secure"], d["localRound"]
    return (
        f"{d['rows']:,} joint rows, {d['featureSums']} sums: {d['ratio']} x plaintext, {secure['relayedBytes'] / 1e9:.2f} GB relayed, "
        f"peak {max(secure['peakMiB'].values())} MiB a node; a LOCAL round {local['ratio']} x a bare Flower round"
    )


def _privacy(d: Figures) -> str:
    planted = [f"{name}: {x['alarms']}/{x['seeds']}" for name, x in d["twoSample"].items()]
    return f"alarms at epsilon 4 - {', '.join(planted)}"


def _recommend(best: str, what: str) -> Callable[[Figures], str]:
    def say(d: Figures) -> str:
        found = {row["model"]: row for row in d["models"]}
        names = [name for name in found if name.startswith((best, "popularity")) or "pooled" in name or "alone" in name]
        return "; ".join(f"{name}: {_of(found[name], what)}" for name in names[:7])

    return say


def _of(row: Figures, what: str) -> str:
    return f"HR@3 {row['hr']['3']:.3f}" if what == "hr" else f"AUC {row['auc']:.3f}"


def _world(d: Figures) -> str:
    rows = [row for row in d["rows"] if row["epsilon"] is not None]
    return "; ".join(
        f"{row['customers']:,} customers, epsilon {row['epsilon']:g}: HR@10 towers {row['mean']['towers']:.3f}, "
        f"items {row['mean']['gramBlend']:.3f}, popularity {row['mean']['general']:.3f}"
        for row in rows
    )


def _connectors(d: Figures) -> str:
    survey, load, everybody, whole = d["survey"], d["load"], d["load all"], d["whole table"]
    return (
        f"{d['persons']:,} persons x {d['columns']} columns: survey {survey['seconds']:.0f} s in {survey['peakMiB']} MiB, load of "
        f"{load['rows']:,} persons {load['seconds']:.0f} s in {load['peakMiB']} MiB, "
        f"of all {everybody['seconds']:.0f} s in {everybody['peakMiB']} MiB; the whole table at once takes {whole['peakMiB']} MiB"
    )


def _runtimes(d: Figures) -> str:
    return "; ".join(
        f"{name}: demo {d[name]['seconds']['total']:.0f} s, of it start {d[name]['seconds']['start']:.0f} s"
        for name in ("embedded", "deployed")
    )


def _exchange(d: Figures) -> str:
    return (
        f"{d['nodes']} nodes, TLS, node authentication: stock {d['stock']['medianSeconds']} s, ours {d['oursInMemory']['medianSeconds']} s "
        f"(Flower's state on SQLite {d['ours']['medianSeconds']} s)"
    )


def _many(d: Figures) -> str:
    return "; ".join(
        f"{name}: {d[name]['nodes']} nodes, {d[name]['memoryMiBPerNode']} MiB a node, {d[name]['secondsPerExchange']} s an exchange"
        for name in ("embedded", "deployed")
        if name in d
    )


def _recovery(d: Figures) -> str:
    return f"{len(d['episodes'])} kills, all accounted for; slowest recovery {d['worstSeconds']} s"


def _network(d: Figures) -> str:
    return "; ".join(f"{e['link']}: {e['outcome']} in {e['seconds']} s" for e in d["episodes"])


def _soak(d: Figures) -> str:
    return (
        f"{d['runs']:,} runs: memory {d['memoryMiB'][2]} to {d['memoryMiB'][-1]} MiB, "
        f"the last fifth takes {d['ratioLastToFirst']} x the first"
    )


ROWS: tuple[tuple[str, str, Callable[[Figures], str]], ...] = (
    ("decide", "make bench-decide", _decide),
    ("register", "make bench-register", _register),
    ("audit", "make bench-audit", _audit),
    ("kills", "make soak", _kills),
    ("population", "make bench-population", _population),
    ("severity", "make bench-severity", _severity),
    ("dpsgd", "make bench-dpsgd", _dpsgd),
    ("protocol", "make bench-protocol", _protocol),
    ("privacy-audit", "make bench-privacy", _privacy),
    ("recommend-coupon", "make bench-recommend", _recommend("joint at epsilon 4", "auc")),
    ("recommend-dundee", "make bench-recommend", _recommend("joint choice model", "hr")),
    ("recommend-world", "make bench-recommend", _world),
    ("connectors", "make bench-connectors", _connectors),
    ("runtimes", "make bench-runtimes", _runtimes),
    ("exchange", "make bench-exchange", _exchange),
    ("many", "make bench-many", _many),
    ("recovery", "make bench-recovery", _recovery),
    ("network", "make bench-network", _network),
    ("soak", "make soak", _soak),
)


if __name__ == "__main__":
    sys.exit(main())
