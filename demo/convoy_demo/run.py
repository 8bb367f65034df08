"""The demo's main job: found the federation once, train two joint models, judge them, verify the log.

Runs add up: a second call goes on with the same parties, ledgers and contracts; the call that would pass a cap is refused
by the nodes with ``BUDGET_EXHAUSTED``. Starting over is a command of its own (``make demo-reset``).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.progress import Progress

from convoy_demo import agreements, figures, founding, runtimes, show
from convoy_demo.api import Api, DemoFailed
from convoy_demo.places import Places
from convoy_demo.population import generate
from convoy_demo.ports import free_port
from convoy_demo.runtimes import Runtime
from convoy_demo.scenario import Scenario

HOLDOUT_DRIVERS = 200_000
HOLDOUT_SEED = 999
RUN_LIMIT_S = 900.0
ENDED = frozenset({"finished", "failed", "refused", "cancelled"})
ALGORITHMS = {agreements.RISK: "risk-towers", agreements.RECOMMENDATION: "recommend-items"}
REQUESTERS = {agreements.RISK: "did:web:insurer-a.example", agreements.RECOMMENDATION: "did:web:charging.example"}
TITLES = {agreements.RISK: "risk model", agreements.RECOMMENDATION: "recommendation model"}


class RunRefused(DemoFailed):
    """A node's gate said no; ``run`` is the coordinator's record of it."""

    def __init__(self, kind: str, run: Mapping[str, Any]) -> None:
        super().__init__(f"the {kind} run was {run['state']}: {run['reason']} at {run['party']}")
        self.kind = kind
        self.run = run


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished demo: its figures and the page's address; the coordinator still serves while the block is open."""

    summary: dict[str, Any]
    url: str


@contextlib.contextmanager
def demo(
    home: Path, runtime: str, scenario: Scenario, asked: Mapping[str, int] = MappingProxyType({})
) -> Iterator[Outcome]:
    """Run the demo and keep the coordinator's page up until the block ends; then everything is stopped.

    Args:
        home: the demo's folder.
        runtime: 'embedded' or 'deployed'.
        scenario: population and terms with which the federation is founded, if it is not there yet.
        asked: what somebody asked for by name (drivers, seed); refused where the federation was founded with another.

    Raises:
        RunRefused: a run was refused or failed.
        DemoFailed: something else stopped it.
    """
    begun = time.monotonic()
    places = Places(home.resolve(), runtime)
    with contextlib.ExitStack() as stack:
        bars = stack.enter_context(show.progress())
        is_new = not places.ready.exists()
        if not is_new:
            _check_asked(json.loads(places.ready.read_text(encoding="utf-8")), asked, places)
        if is_new:
            if places.root.exists():
                shutil.rmtree(places.root)  # a set-up that was interrupted; it never trained anything
            founding.found_coordinator(places, free_port())
        serve = runtimes.coordinator_thread if runtime == "embedded" else runtimes.coordinator_process
        url = stack.enter_context(serve(places.coordinator))
        api = Api(url, places.coordinator / "keys")
        stack.callback(api.close)
        api.wait_ready(60)
        if is_new:
            _found(places, api, scenario, bars)
        facts = json.loads(places.ready.read_text(encoding="utf-8"))
        contracts, drivers, seed = facts["contracts"], facts["drivers"], facts["seed"]

        step = bars.add_task(f"Start ({runtime})", total=1, note="")
        launch = runtimes.embedded if runtime == "embedded" else runtimes.superlink
        with launch(places, url) as federation:
            bars.update(step, completed=1)
            budget = show.Budget(bars, figures.epsilon_figures(places))

            def tell_epsilon(budget: show.Budget = budget) -> None:
                budget.update(figures.epsilon_figures(places))

            started = time.monotonic()
            runs, seconds = {}, {"start": started - begun}
            for kind in (agreements.RISK, agreements.RECOMMENDATION):
                before = time.monotonic()
                runs[kind] = _train(kind, contracts[kind], api, federation, bars, tell_epsilon)
                seconds[kind] = time.monotonic() - before
        summary = _judge(places, api, runs, contracts, drivers, seed, bars)
        seconds["total"] = time.monotonic() - begun
        summary["seconds"] = {name: round(value, 2) for name, value in seconds.items()}
        summary["runtime"] = runtime
        (places.home / "summary.json").write_text(json.dumps(summary, indent=2, ensure_ascii=False), encoding="utf-8")
        bars.stop()
        yield Outcome(summary, url)


def _check_asked(facts: Mapping[str, Any], asked: Mapping[str, int], places: Places) -> None:
    other = [f"{name} {facts[name]}, not {value}" for name, value in asked.items() if facts[name] != value]
    if other:
        raise DemoFailed(
            f"{places.home} was founded with {' and '.join(other)}. Take another --home, start over with make demo-reset, or leave"
            " the option out."
        )


def _found(places: Places, api: Api, scenario: Scenario, bars: Progress) -> None:
    step = bars.add_task("Six nodes, keys, consents", total=1, note="")
    founding.found(places, scenario, api, lambda what: bars.update(step, note=what))
    bars.update(step, completed=1)


def _train(
    kind: str,
    digest: str,
    api: Api,
    federation: Runtime,
    bars: Progress,
    tell_epsilon: Callable[[], None],
) -> Mapping[str, Any]:
    order = {
        "contractDigest": digest,
        "algorithm": ALGORITHMS[kind],
        "requester": REQUESTERS[kind],
        "purpose": agreements.PURPOSES[kind],
    }
    uid = str(api.post("/v1/runs", order)["uid"])
    step = bars.add_task(f"Train the {TITLES[kind]}", total=1, note="authorise")
    federation.start(uid)
    deadline = time.monotonic() + RUN_LIMIT_S
    while time.monotonic() < deadline:
        run = api.get(f"/v1/runs/{uid}")
        _show_progress(bars, step, run)
        tell_epsilon()
        if run["state"] in ENDED:
            break
        time.sleep(0.3)
    else:
        raise DemoFailed(f"run {uid} did not end within {RUN_LIMIT_S:.0f} s")
    if run["state"] != "finished":
        raise RunRefused(TITLES[kind], run)
    return dict(run)


def _show_progress(bars: Progress, step: Any, run: Mapping[str, Any]) -> None:
    facts = run["progress"]
    done, total = facts.get("done", 0), facts.get("total", 1)
    if run["state"] in ENDED:
        bars.update(step, completed=total, total=total, note=run["state"])
    else:
        note = f"query {done} of {total}" if "total" in facts else str(facts.get("step", "authorise"))
        bars.update(step, completed=done, total=total, note=note)


def _judge(
    places: Places, api: Api, runs: Mapping[str, Mapping[str, Any]], contracts: Mapping[str, str], drivers: int, seed: int,
    bars: Progress,
) -> dict[str, Any]:  # fmt: skip
    step = bars.add_task("Judge and verify", total=3, note="risk")
    training, holdout = generate(drivers, seed), generate(max(drivers, HOLDOUT_DRIVERS), HOLDOUT_SEED)
    bundles = {kind: figures.load_release(places, str(run["uid"]), kind, contracts[kind]) for kind, run in runs.items()}
    risk = figures.risk_figures(bundles[agreements.RISK], training, holdout)
    api.summary(str(runs[agreements.RISK]["uid"]), risk)
    bars.update(step, advance=1, note="recommendation")
    offers = figures.recommendation_figures(bundles[agreements.RECOMMENDATION], training, holdout, seed)
    api.summary(str(runs[agreements.RECOMMENDATION]["uid"]), offers)
    bars.update(step, advance=1, note="evidence")
    api.download("/v1/evidence.zip", places.evidence)
    verdict = figures.audit_figures(places.evidence)
    bars.update(step, advance=1, note=f"{verdict['entries']} entries")
    return {
        "risk": risk,
        "recommendation": offers,
        "epsilon": figures.epsilon_figures(places),
        "audit": {
            "entries": verdict["entries"],
            "witnesses": verdict["witnesses"],
            "verified": verdict["verified"],
        },
        "release": str(places.coordinator / "releases" / str(runs[agreements.RISK]["uid"])),
        "protocol": {
            kind: {
                name: run["progress"].get(name)
                for name in ("seconds", "secondsByAction", "exchanges", "messages", "blobBytes")
            }
            for kind, run in runs.items()
        },
    }
