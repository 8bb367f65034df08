"""Recommendation benchmark on any data set described by YAML: alone, joint, joint with privacy, pooled.

    python bench/recommend.py --dataset bench/data/coupon.yaml --epsilon 4 --json bench/results/recommend-coupon.json
    python bench/recommend.py --dataset bench/data/dundee.yaml --epsilon 4 --json bench/results/recommend-dundee.json

Unit of privacy: person (all rows of a person at all partners), delta 1e-6. The noise is what is really added under
``honest-one/1`` (each of K partners sigma^2 / (K - 1)); ``--noise exact`` draws it from the nodes' exact sampler, ``seeded``
from a repeatable one of the same size. How to describe a data set: docs/recommendation.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import recommend_events
import recommend_labelled
from recommend_data import Described, DescriptionRefused, read
from results_file import unwritable

from convoy_models.errors import ModelsError

PRIVACY = (
    "epsilon is per person (unit: {unit}) at delta {delta:g}, for one run, against the coordinator, every recipient of the model"
    " and any one party; nodes follow the protocol"
)


def run(described: Described, epsilons: Sequence[float], seeds: int, exact: bool) -> dict[str, Any]:
    """Train and judge; return the document that ``--json`` writes."""
    kind = described.text["kind"]
    rows: Sequence[Any]
    if kind == "labelled":
        task = recommend_labelled.prepare(described)
        rows = recommend_labelled.measure(task, epsilons, seeds, exact)
        facts = {"weights": task.design.size, "terms": len(task.design.terms), "folds": len(task.folds)}
    else:
        choice = recommend_events.prepare(described)
        rows = recommend_events.measure(choice, epsilons, seeds, exact)
        facts = {"items": len(choice.items), "testPersons": int(choice.test.chosen.size)}
    unit = str(described.text.get("unit", "person"))
    return {
        "dataset": str(described.text["name"]),
        "kind": kind,
        "unit": unit,
        "delta": recommend_labelled.DELTA,
        "privacy": PRIVACY.format(unit=unit, delta=recommend_labelled.DELTA),
        "rows": described.rows,
        "persons": len(set(described.user.tolist())),
        "partners": len(described.parties),
        "noise": "exact discrete Gaussian" if exact else "seeded, same size",
        "facts": facts,
        "models": [asdict(row) for row in rows],
        "references": {str(name): value for name, value in described.text.get("references", {}).items()},
        "notes": list(dict.fromkeys(described.notes)),
    }


def show(document: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    title = f"{document['dataset']}: {document['rows']:,} rows, {document['persons']:,} persons, "
    title += f"{document['partners']} partner(s); unit: {document['unit']}; delta {document['delta']:g}"
    lines = [title, f"privacy: {document['privacy']}", ""]
    labelled = document["kind"] == "labelled"
    tops = [] if labelled else list(document["models"][0]["hr"])
    head = (
        ["AUC (sd over seeds)", "log loss", "AUC - best alone, 95 %"]
        if labelled
        else [*(f"HR@{k}" for k in tops), "HR - EASE, 95 %"]
    )
    lines += ["| model | " + " | ".join(head) + " | runs | s/run |", "|---" * (len(head) + 3) + "|"]
    for row in document["models"]:
        gap = "" if row["interval"] is None else f"{row['interval'][0]:+.3f} to {row['interval'][1]:+.3f}"
        cells = (
            [f"{row['auc']:.4f} ({row['auc_sd']:.4f})", f"{row['log_loss']:.4f}", gap]
            if labelled
            else [*(f"{row['hr'][k]:.3f} ({row['hr_sd'][k]:.3f})" for k in tops), gap]
        )
        lines.append(f"| {row['model']} | " + " | ".join(cells) + f" | {row['runs']} | {row['seconds']:.1f} |")
    lines += [f"| published: {name} | {value} |" for name, value in document["references"].items()]
    lines += ["", *(f"note: {note}" for note in document["notes"])]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code (2: the description, its data or an option cannot be used)."""
    parser = argparse.ArgumentParser(description="Joint recommendation on a described data set, against alone.")
    parser.add_argument("--dataset", type=Path, required=True, help="YAML description (docs/recommendation.md)")
    parser.add_argument("--data", type=Path, help="folder of the data file")
    parser.add_argument("--epsilon", type=float, default=4.0, help="per person; 1 is shown as well")
    parser.add_argument("--seeds", type=int, default=5, help="noise seeds per epsilon")
    parser.add_argument("--noise", choices=("seeded", "exact"), default="seeded")
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args(arguments)
    faults = _told_before_training(options)
    try:
        described = read(options.dataset, options.data)
        described.faults[:0] = faults
        document = run(described, sorted({options.epsilon, 1.0}, reverse=True), options.seeds, options.noise == "exact")
    except DescriptionRefused as refusal:
        print(f"refused: {DescriptionRefused([*faults, *refusal.faults])}", file=sys.stderr)
        return 2
    except ModelsError as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 2
    print(show(document))
    if options.json is not None:
        written = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            options.json.write_text(written, encoding="utf-8")
        except OSError as error:
            print(f"refused: {_unwritten(options.json, error.strerror)}", file=sys.stderr)
            return 2
    return 0


def _told_before_training(options: argparse.Namespace) -> list[str]:
    """Return what is wrong with the options; a result that could not be written is told before minutes of training."""
    faults = []
    if not 0 < options.epsilon <= 100:
        faults.append(f"--epsilon is {options.epsilon:g}; give a number in (0, 100]")
    if options.seeds < 1:
        faults.append(f"--seeds is {options.seeds}; give at least 1")
    if options.json is not None:
        cause = unwritable(options.json)
        faults += [_unwritten(options.json, cause)] if cause else []
    return faults


def _unwritten(path: Path, cause: str | None) -> str:
    return f"--json {path}: it cannot be written ({cause}); name a place that can"


if __name__ == "__main__":
    sys.exit(main())
