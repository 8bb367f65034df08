"""What the demo prints: progress while it runs, tables at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from convoy_models.accounting import shown

console = Console()


def progress() -> Progress:
    """Return the progress display: what, how far, epsilon, time."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        console=console,
        transient=False,
    )


class Budget:
    """One bar a party: epsilon spent of what is allowed, per person, from the party's own ledger."""

    def __init__(self, bars: Progress, figures: Mapping[str, Mapping[str, float]]) -> None:
        self._bars = bars
        self._tasks = {
            party: bars.add_task(f"  epsilon {party}", total=epsilon["allowed"], note="")
            for party, epsilon in figures.items()
        }
        self.update(figures)

    def update(self, figures: Mapping[str, Mapping[str, float]]) -> None:
        """Show new figures."""
        for party, epsilon in figures.items():
            spent, allowed = epsilon["spent"], epsilon["allowed"]
            self._bars.update(self._tasks[party], completed=spent, note=f"{shown(spent, 2)} of {allowed:g}")


def result(summary: Mapping[str, Any]) -> None:
    """Print the tables of a finished demo."""
    risk, offers = summary["risk"], summary["recommendation"]
    table = Table(title="Risk, on held-out drivers with OEM data 风险模型（留出样本）", title_justify="left")
    table.add_column("model")
    for name in ("D2 %", "Gini", "AUC top decile"):
        table.add_column(name, justify="right")
    for party, worth in risk["alone"].items():
        table.add_row(f"{party} alone, no DP", *(_figures(worth)))
    table.add_row("[bold]joint, epsilon 4 per person[/bold]", *(f"[bold]{x}[/bold]" for x in _figures(risk["joint"])))
    console.print(table)

    table = Table(title="Recommendation, held-out customers 推荐模型", title_justify="left")
    table.add_column("list of 10")
    table.add_column("HR@10", justify="right")
    table.add_row("popularity", f"{offers['popularity']:.3f}")
    table.add_row("[bold]joint, epsilon 4 per person[/bold]", f"[bold]{offers['hr10']:.3f}[/bold]")
    console.print(table)

    table = Table(
        title="Privacy budget per person, delta 1e-6, all contracts of the year, towards coordinator and recipients 隐私预算",
        title_justify="left",
    )
    for name in ("party", "epsilon spent", "allowed"):
        table.add_column(name, justify="left" if name == "party" else "right")
    for party, epsilon in summary["epsilon"].items():
        table.add_row(party, shown(epsilon["spent"]), f"{epsilon['allowed']:g}")
    console.print(table)


def refused(kind: str, run: Mapping[str, Any]) -> None:
    """Print why a run was stopped."""
    console.print(
        Panel(
            f"[bold]{run['reason']}[/bold] at {run['party']}\n{run['cause']}\n\n{run['fix'] or ''}",
            title=f"The {kind} run was {run['state']} 训练未执行",
            border_style="yellow",
        )
    )


def _figures(worth: Mapping[str, float]) -> tuple[str, str, str]:
    return f"{worth['d2']:.2f}", f"{worth['gini']:.3f}", f"{worth['auc10']:.3f}"
