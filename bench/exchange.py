"""One exchange with six nodes: stock Flower and ours, the same app, TLS and node authentication on both, in one go.

``python bench/exchange.py --json bench/results/exchange.json`` starts stock ``flower-superlink`` and six ``flower-supernode`` as
Flower documents them (SQLite, authentication by key, a bundle sent by ``flwr run``), measures, stops them; then our SuperLink,
ServerApp worker and six SuperNodes with warm workers, with Flower's state on disk as well and in memory. An exchange is one message
of ``--words`` 64-bit words to every node and the answers of all; the first of each side is left out (it starts processes). Both sides
run on the loopback of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from convoy_coordinator.federation.flower.deployment import NodeLaunch, deployed
from convoy_coordinator.federation.flower.environment import FIXED
from convoy_coordinator.federation.flower.link_home import LinkHome, write_private
from convoy_coordinator.federation.flower.pki import new_node_key, write_loopback_certificates
from convoy_demo.ports import free_port

BENCH = Path(__file__).resolve().parent
PROJECT = """\
[project]
name = "exchange"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "exchange_app.echo:server"
clientapp = "exchange_app.echo:client"
[tool.flwr.app.config]
nodes = 6
words = 1000
exchanges = 5
out = ""
"""
LIMIT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results go")
    parser.add_argument("--nodes", type=int, default=6)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--exchanges", type=int, default=6)
    given = parser.parse_args(arguments)
    results: dict[str, Any] = {"nodes": given.nodes, "words": given.words, "machine": {"cores": os.cpu_count()}}
    sides = {"ours": False, "oursInMemory": True}
    for name, in_memory in sides.items():
        with tempfile.TemporaryDirectory() as folder:
            results[name] = told(ours(Path(folder), given, in_memory=in_memory))
    with tempfile.TemporaryDirectory() as folder:
        results["stock"] = told(stock(Path(folder), given))
    medians = {name: results[name]["medianSeconds"] for name in (*sides, "stock")}
    results["ratioStockToOurs"] = round(medians["stock"] / medians["ours"], 1)
    given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=2))
    return 0


def told(seconds: list[float]) -> dict[str, Any]:
    """Return what is reported of one side."""
    warm = seconds[1:]
    return {
        "firstSeconds": round(seconds[0], 3),
        "medianSeconds": round(statistics.median(warm), 3),
        "secondsFromTo": [round(min(warm), 3), round(max(warm), 3)],
    }


def ours(folder: Path, given: argparse.Namespace, *, in_memory: bool) -> list[float]:
    """Measure our runtime."""
    out = folder / "seconds.json"
    launches = []
    for number in range(given.nodes):
        home = folder / f"node-{number}"
        home.mkdir()
        private, public = new_node_key()
        write_private(home / "node.key", private)
        launches.append(
            NodeLaunch(
                f"did:web:{number}.example",
                home,
                home / "node.key",
                public,
                "exchange_app.echo:installed",
                message_types=["query.echo"],
            )
        )
    settings = {"nodes": given.nodes, "words": given.words, "exchanges": given.exchanges, "out": out}
    os.environ["PYTHONPATH"] = str(BENCH)
    with deployed(
        LinkHome(folder / "link"),
        launches,
        "exchange_app.echo:server",
        settings={name: str(value) for name, value in settings.items()},
        in_memory=in_memory,
    ) as deployment:
        deployment.control.start_run(deployment.app_hash)
        return _result(out)


def write_stock_key(path: Path) -> None:
    """Write a new P-256 key and, beside it, its ``.pub``: stock Flower reads OpenSSH's format only."""
    key = load_pem_private_key(new_node_key()[0], None)
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.with_suffix(".pub").write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))


def stock(folder: Path, given: argparse.Namespace) -> list[float]:
    """Measure Flower as it comes."""
    home = LinkHome(folder / "link")
    home.path.mkdir()
    write_loopback_certificates(home)
    app, out, port = folder / "app", folder / "seconds.json", free_port()
    (app / "exchange_app").mkdir(parents=True)
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    for name in ("__init__.py", "echo.py"):
        shutil.copy(BENCH / "exchange_app" / name, app / "exchange_app" / name)
    flower_home = folder / "operator"
    flower_home.mkdir()
    (flower_home / "config.toml").write_text(
        f'[superlink.bench]\naddress = "127.0.0.1:{port}"\nroot-certificates = "{home.ca_file}"\n', encoding="utf-8"
    )
    me = Path(sys.executable).parent
    environment = {**os.environ, **FIXED, "FLWR_HOME": str(flower_home), "PATH": f"{me}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((folder / "log").open("ab"))
        stack.enter_context(
            _kept(
                [
                    *(
                        me / "flower-superlink",
                        "--host",
                        "127.0.0.1",
                        "--port",
                        port,
                        "--ssl-ca-certfile",
                        home.ca_file,
                    ),
                    *(
                        "--ssl-certfile",
                        home.certificate_file,
                        "--ssl-keyfile",
                        home.key_file,
                        "--enable-supernode-auth",
                    ),
                    *("--database", folder / "link.db", "--disable-runtime-dependency-installation"),
                ],
                {**environment, "FLWR_HOME": str(folder / "superlink")},
                log,
            )
        )
        for number in range(given.nodes):
            key = folder / f"key-{number}"
            write_stock_key(key)
            _patiently(
                [me / "flwr", "supernode", "register", f"{key}.pub", "bench", "--name", str(number)], environment
            )
            stack.enter_context(
                _kept(
                    [
                        *(
                            me / "flower-supernode",
                            "--superlink",
                            f"127.0.0.1:{port}",
                            "--root-certificates",
                            home.ca_file,
                        ),
                        *("--auth-supernode-private-key", key, "--host", "127.0.0.1", "--port", free_port()),
                    ],
                    {**environment, "FLWR_HOME": str(folder / f"node-{number}")},
                    log,
                )
            )
        config = f"nodes={given.nodes} words={given.words} exchanges={given.exchanges} out='{out}'"
        _patiently([me / "flwr", "run", app, "bench", "--run-config", config], environment)
        try:
            return _result(out)
        except SystemExit:
            print((folder / "log").read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
            raise


@contextlib.contextmanager
def _kept(command: Sequence[object], environment: dict[str, str], log: Any) -> Iterator[None]:
    process = subprocess.Popen(
        list(map(str, command)),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _patiently(command: Sequence[object], environment: dict[str, str]) -> None:
    """Run a command until it succeeds: the SuperLink may still be starting."""
    deadline = time.monotonic() + 60
    while True:
        done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True, check=False)
        if done.returncode == 0 and "error" not in done.stdout.lower():
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"{command}: {done.stdout[-1500:]} {done.stderr[-1500:]}")
        time.sleep(1)


def _result(out: Path) -> list[float]:
    deadline = time.monotonic() + LIMIT_S
    while not out.exists():
        if time.monotonic() > deadline:
            raise SystemExit("no result within ten minutes")
        time.sleep(0.1)
    return list(json.loads(out.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
