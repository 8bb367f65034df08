"""Measure the protocol: vertical training over two towers, secure against plaintext, each node a process of its own.

``python bench/protocol.py --json bench/results/protocol.json`` draws a book (1,000,000 joint rows, or ``--rows``) with a carmaker's
and an insurer's columns of the same drivers (synthetic: the cost does not depend on values), splits it over three insurers, and fits
the joint frequency model twice: in plaintext in one process, and with the real sessions of ``convoy_models.sums`` in five (carmaker,
three insurers, trustee) that exchange sealed blobs through this one, which relays and adds as the coordinator does. Noise is the
production sampler. The model has 9 + 9 features in 25 + 31 columns and 3 passes: 54 sums over one feature each, plus the label
sums; a pass asks the features of a tower together, at the same public weights.

Then ``bench/local_round.py`` compares a LOCAL round of the node runtime with a bare Flower round trip on the same grid.
Memory is VmHWM of each process, start of Python included. Relayed bytes are the sealed blobs between nodes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from convoy_contracts.specification import Knots, RiskSpecification, Tower
from convoy_models.messages import Payload, from_record, relay, to_record
from convoy_models.plan import Plan, plan
from convoy_models.risk.fit import RiskFit
from convoy_models.risk.towers import Design, Labels
from convoy_models.simulate import PlainCohort, fit_plain

INSURERS: Final = {"insurer-a": 0.6, "insurer-b": 0.3, "insurer-c": 0.1}
OEM: Final = "oem"
TRUSTEE: Final = "auditor"
PARTIES: Final = (OEM, *INSURERS, TRUSTEE)
WIDTHS: Final = {"insurer": (3, 3, 3, 3, 3, 3, 3, 2, 2), "oem": (4, 4, 4, 4, 3, 3, 3, 3, 3)}
CAPS: Final = {"insurer": "0.25", "oem": "2.2"}
LOCAL_ROUND: Final = Path(__file__).with_name("local_round.py")


def specification(passes: int) -> RiskSpecification:
    """Return the model: towers on equally spaced knots in [0, 1]."""
    towers = tuple(
        Tower(
            role="insurer" if role == "insurer" else "oem",
            features=tuple(
                Knots(kind="knots", name=f"{role}_{n}", knots=tuple(f"{k / (w - 1):.4f}" for k in range(w)))
                for n, w in enumerate(widths)
            ),
            cap=CAPS[role],
        )
        for role, widths in WIDTHS.items()
    )
    return RiskSpecification(
        kind="risk-towers/1", towers=towers, claims="claims", exposure="years", claimCap=1, priorRate="0.08",
        priorScale="0.2", smoothness="0.8", sweeps=passes, labelShareMilli=650, patterns="joint-only",
        epsilonMicro=4_000_000, deltaNano=1_000,
    )  # fmt: skip


def roles() -> dict[str, list[str]]:
    """Return who plays what."""
    return {"oem": [OEM], "insurer": list(INSURERS)}


def rows_of(insurer: str, rows: int) -> int:
    """Return how many joint drivers an insurer has."""
    return max(50, round(INSURERS[insurer] * rows))


def columns_of(insurer: str, rows: int) -> dict[str, Any]:
    """Draw both parties' columns of one insurer's joint drivers; every process draws the same."""
    rng = np.random.default_rng([7, list(INSURERS).index(insurer)])
    count = rows_of(insurer, rows)
    columns: dict[str, Any] = {
        f"{role}_{n}": rng.random(count, dtype=np.float64)
        for role, widths in WIDTHS.items()
        for n in range(len(widths))
    }
    risk = 0.08 * np.exp(columns["insurer_0"] + columns["oem_0"] - columns["oem_1"])
    columns["years"] = np.full(count, 1.0)
    columns["claims"] = rng.poisson(risk).astype(np.float64)
    return columns


def links_of(insurer: str, rows: int) -> list[bytes]:
    """Return the link ids of one insurer's joint drivers."""
    raw = np.random.default_rng([8, list(INSURERS).index(insurer)]).bytes(16 * rows_of(insurer, rows))
    return [raw[at : at + 16] for at in range(0, len(raw), 16)]


# One node ----------------------------------------------------------------------------------------------------------------


def node(party: str, private: bytes, public: Mapping[str, bytes], rows: int, passes: int, pipe: Connection) -> None:
    """Answer questions until told to stop: the session of one party over its own rows."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    from convoy_models.masks import PairKeys
    from convoy_models.noise import DiscreteGaussian
    from convoy_models.sums import DealerSession, PartySession

    spec = specification(passes)
    made = plan(spec, roles())
    keys = PairKeys(party, X25519PrivateKey.from_private_bytes(private), public, "sha256:bench")
    if party == TRUSTEE:
        serve(pipe, dealing(DealerSession("run", 1, keys), made))
        return
    peers = list(INSURERS) if party == OEM else [OEM]
    noise = DiscreteGaussian()
    noise.draw(1e6, 1)  # imports the sampler: a node that runs has done that
    session = PartySession("run", 1, keys, peers=peers, trustee=TRUSTEE, noise=noise)
    serve(pipe, holding(session, party, peers, spec, made, rows))


def dealing(dealer: Any, made: Plan) -> Callable[[str, Payload], Payload]:
    """Return the trustee's answers."""

    def answer(action: str, payload: Payload) -> Payload:
        dealer.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        for name in payload.data.get("queries", ()):
            blobs |= dealer.deal(made[name])
        return Payload({}, blobs)

    return answer


def holding(
    session: Any, party: str, peers: Sequence[str], spec: RiskSpecification, made: Plan, rows: int
) -> Callable[[str, Payload], Payload]:
    """Return a data holder's answers: what ``convoy_node.rounds`` does for a risk run."""
    role = "oem" if party == OEM else "insurer"
    tower = next(t for t in spec.towers if t.role == role)
    cap = float(tower.cap)
    designs: dict[str, Design] = {}
    labels: dict[str, Labels] = {}

    def answer(action: str, payload: Payload) -> Payload:
        session.receive(payload.blobs)
        blobs: dict[str, bytes] = {}
        asks = [(made[a["query"]], a["weights"]) for a in payload.data.get("asks", ())]
        match action:
            case "align":
                for peer in peers:
                    blobs |= session.links(peer, links_of(peer if role == "oem" else party, rows))
            case "matrix":
                if not designs:
                    for peer in peers:
                        order = session.align(peer)
                        columns = columns_of(peer if role == "oem" else party, rows)
                        mine = {
                            name: values[order]
                            for name, values in columns.items()
                            if name.startswith(role) or role == "insurer"
                        }
                        designs[peer] = Design.build(tower, mine)
                        if role == "insurer":
                            labels[peer] = Labels.build(spec, mine)
                        session.hold(peer, designs[peer].dense())
                return Payload({"chunks": session.chunks}, session.matrix(payload.data["chunk"]))
            case "open":
                for query, weights in asks:
                    factors = {
                        p: d.factor(weights[role], labels[p].exposure_years if role == "insurer" else None)
                        for p, d in designs.items()
                    }
                    blobs |= session.open(query, factors, cap)
            case "share":
                for query, _ in asks:
                    if query.kind == "DOT" and role == "insurer":
                        blobs |= session.share(query, {p: v.capped(spec.claimCap) for p, v in labels.items()}, 1.0)
                    else:
                        blobs |= session.share(query)
            case "close":
                local = {}
                for query, _ in asks:
                    if query.kind == "LOCAL":
                        total = sum(d.sums(labels[p].capped(spec.claimCap), query.columns) for p, d in designs.items())
                        local[query.id] = np.asarray(total)
                return Payload({}, {}, {q.id: session.close(q, local.get(q.id)) for q, _ in asks})
        return Payload({}, blobs)

    return answer


def serve(pipe: Connection, answer: Callable[[str, Payload], Payload]) -> None:
    """Read questions and write answers, with own processor time and peak memory."""
    while True:
        head = json.loads(pipe.recv_bytes())
        if head["action"] == "stop":
            used = resource.getrusage(resource.RUSAGE_SELF)
            pipe.send_bytes(json.dumps({"peakKiB": peak_kib(), "cpuSeconds": used.ru_utime + used.ru_stime}).encode())
            return
        send(pipe, answer(head["action"], receive(pipe)))


def send(pipe: Connection, payload: Payload) -> None:
    """Write a payload: its records as one line of names and sizes, then the bytes."""
    record = to_record(payload)
    head: dict[str, Any] = {
        "json": record["c"]["json"],
        "blobs": sorted(payload.blobs),
        "arrays": sorted(payload.arrays),
    }
    pipe.send_bytes(json.dumps(head).encode())
    for name in head["blobs"]:
        pipe.send_bytes(payload.blobs[name])
    for name in head["arrays"]:
        pipe.send_bytes(payload.arrays[name].tobytes())


def receive(pipe: Connection) -> Payload:
    """Read a payload."""
    head = json.loads(pipe.recv_bytes())
    blobs = {name: pipe.recv_bytes() for name in head["blobs"]}
    arrays = {name: np.frombuffer(pipe.recv_bytes(), dtype=np.uint64) for name in head["arrays"]}
    return from_record({"c": {"json": head["json"], **blobs}, "a": arrays})


# The coordinator ---------------------------------------------------------------------------------------------------------


class Federation:
    """The five processes and the relay between them."""

    def __init__(self, rows: int, passes: int) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        private = {party: X25519PrivateKey.generate() for party in PARTIES}
        public = {party: key.public_key().public_bytes_raw() for party, key in private.items()}
        context = mp.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = []
        for party in PARTIES:
            here, there = context.Pipe()
            given = (party, private[party].private_bytes_raw(), public, rows, passes, there)
            process = context.Process(target=node, args=given, daemon=True)
            process.start()
            self._pipes[party] = here
            self._processes.append(process)
        self._mail: dict[str, dict[str, bytes]] = {}
        self.relayed_bytes = 0
        self.seconds: dict[str, float] = {}

    def ask(self, action: str, questions: Mapping[str, Mapping[str, Any]]) -> dict[str, Payload]:
        """Ask parties at the same time; keep their mail for the next question."""
        started = time.monotonic()
        for party, data in questions.items():
            mail = self._mail.pop(party, {})
            self.relayed_bytes += sum(map(len, mail.values()))
            self._pipes[party].send_bytes(json.dumps({"action": action}).encode())
            send(self._pipes[party], Payload(dict(data), mail))
        answers = {party: receive(self._pipes[party]) for party in questions}
        for party, blobs in relay(answers).items():
            self._mail.setdefault(party, {}).update(blobs)
        self.seconds[action] = self.seconds.get(action, 0.0) + time.monotonic() - started
        return answers

    def stop(self) -> dict[str, dict[str, float]]:
        """Stop every process; return peak memory and processor time by party."""
        facts = {}
        for party, pipe in self._pipes.items():
            pipe.send_bytes(json.dumps({"action": "stop"}).encode())
            facts[party] = json.loads(pipe.recv_bytes())
        for process in self._processes:
            process.join()
        return facts


def secure(rows: int, passes: int) -> tuple[dict[str, Any], Any]:
    """Fit through the protocol; return the figures and the model."""
    from convoy_models.sums import open_sum

    spec = specification(passes)
    made = plan(spec, roles())
    federation = Federation(rows, passes)
    for party in PARTIES:  # imports are done before the clock starts
        federation.ask("ready", {party: {}})
    federation.seconds.clear()
    holders = [OEM, *INSURERS]
    started = time.monotonic()
    federation.ask("align", {p: {} for p in holders})
    chunk, chunks = 0, 1
    while chunk < chunks:
        answers = federation.ask("matrix", {p: {"chunk": chunk} for p in holders})
        chunks = max(answer.data["chunks"] for answer in answers.values())
        chunk += 1
    aligned = time.monotonic() - started
    steps = RiskFit(spec, made).steps()
    asks = next(steps)
    while True:
        planned = [(ask, made[ask.query]) for ask in asks]
        paired = [q.id for _, q in planned if q.kind != "LOCAL"]
        federation.ask("deal", {TRUSTEE: {"queries": paired}})
        for action, kinds in (
            ("open", {"WEIGHTED"}),
            ("share", {"DOT", "WEIGHTED"}),
            ("close", {"LOCAL", "DOT", "WEIGHTED"}),
        ):
            chosen = [(a, q) for a, q in planned if q.kind in kinds]
            questions = {
                p: {"asks": [{"query": a.query, "weights": a.weights} for a, q in chosen if p in q.participants]}
                for p in holders
                if any(p in q.participants for _, q in chosen)
            }
            if questions:
                answers = federation.ask(action, questions)
        sums = {q.id: open_sum(q, {p: answers[p].arrays[q.id] for p in q.participants}) for _, q in planned}
        try:
            asks = steps.send(sums)
        except StopIteration as done:
            model = done.value
            break
    wall = time.monotonic() - started
    facts = federation.stop()
    return {
        "wallSeconds": round(wall, 2),
        "alignAndMatrixSeconds": round(aligned, 2),
        "secondsByAction": {k: round(v, 2) for k, v in federation.seconds.items()},
        "relayedBytes": federation.relayed_bytes,
        "relayedBytesPerRow": round(federation.relayed_bytes / sum(rows_of(k, rows) for k in INSURERS), 1),
        "peakMiB": {p: round(f["peakKiB"] / 1024) for p, f in facts.items()},
        "cpuSeconds": {p: round(f["cpuSeconds"], 2) for p, f in facts.items()},
    }, model


def plaintext(rows: int, passes: int) -> tuple[dict[str, Any], Any]:
    """Fit the same model on pooled rows in one process, encoding of the columns included as in the secure fit."""
    spec = specification(passes)
    made = plan(spec, roles())
    parts = [columns_of(insurer, rows) for insurer in INSURERS]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    del parts
    started = time.monotonic()
    cohort = PlainCohort.build(spec, columns)
    model = fit_plain(spec, made, {"joint": cohort}, believed="planned")
    return {"wallSeconds": round(time.monotonic() - started, 2)}, model


def peak_kib() -> int:
    """Return VmHWM of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, default=Path("bench/results/protocol.json"), help="where the results go")
    parser.add_argument("--rows", type=int, default=1_000_000, help="joint rows")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--without-local-round", action="store_true", help="only the vertical training")
    given = parser.parse_args(arguments)
    spec = specification(given.passes)
    made = plan(spec, roles())
    plain, plain_model = plaintext(given.rows, given.passes)
    joint, joint_model = secure(given.rows, given.passes)
    rates = {name: rate_of(model, given.rows) for name, model in (("plain", plain_model), ("secure", joint_model))}
    features = sum(map(len, WIDTHS.values()))
    results: dict[str, Any] = {
        "rows": sum(rows_of(k, given.rows) for k in INSURERS),
        "columns": sum(map(sum, WIDTHS.values())),
        "featureSums": features * given.passes,
        "protocolQueries": len(made.queries),
        "plaintext": plain,
        "secure": joint,
        "ratio": round(joint["wallSeconds"] / plain["wallSeconds"], 2),
        "meanAbsoluteLogRateDifference": round(float(np.abs(np.log(rates["secure"] / rates["plain"])).mean()), 4),
        "machine": {"cores": os.cpu_count()},
    }
    if not given.without_local_round:
        run = subprocess.run([sys.executable, str(LOCAL_ROUND)], check=True, capture_output=True, text=True)
        results["localRound"] = json.loads(run.stdout)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


def rate_of(model: Any, rows: int) -> np.ndarray[Any, Any]:
    """Return the model's rates for the smallest insurer's drivers."""
    columns = {name: values[:10_000] for name, values in columns_of("insurer-c", rows).items()}
    return np.asarray(model.rate("joint", columns))


if __name__ == "__main__":
    sys.exit(main())
