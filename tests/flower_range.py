"""Run the contract tests of the Flower adapter at both ends of the allowed version range: ``python tests/flower_range.py``.

Each version is installed without its dependencies into a scratch folder that comes first on the path of the test process; the
rest is this environment's. Not part of CI: it takes minutes and downloads. Results stand in docs/decisions/0071.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

VERSIONS = ("1.41.0", "1.42.0")
TESTS = ("tests/unit/flower", "tests/integration/flower")
DEPLOYED = "tests/e2e/test_join.py"
"""Partners that join, a SuperLink, SuperNodes and workers as processes, a run, a revocation: what the adapter is for."""
ROOT = Path(__file__).resolve().parents[1]


def run(version: str, tests: list[str]) -> int:
    """Run the tests under one version of flwr; return the exit code."""
    with tempfile.TemporaryDirectory(prefix=f"flwr-{version}-") as folder:
        install = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            folder,
            f"flwr=={version}",
        ]
        subprocess.run(install, check=True)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH", ""))))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }
        seen = subprocess.run(
            [sys.executable, "-c", "import flwr; from importlib.metadata import version; print(version('flwr'), flwr.__file__)"],
            check=True, capture_output=True, text=True, env=environment,
        ).stdout.split()  # fmt: skip
        if seen[0] != version or not seen[1].startswith(folder):
            print(f"flwr {version} is not the one that was imported: {seen}")
            return 1
        print(f"flwr {version}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Run every version, whatever the others say."""
    line = argparse.ArgumentParser(description="The adapter's contract tests at both ends of Flower's allowed range.")
    line.add_argument("--version", action="append", help="only this one")
    line.add_argument("tests", nargs="*", default=[*TESTS, DEPLOYED])
    given = line.parse_args()
    codes = {version: run(version, given.tests) for version in given.version or VERSIONS}
    print({version: "passed" if code == 0 else f"exit code {code}" for version, code in codes.items()})
    return max(codes.values())


if __name__ == "__main__":
    sys.exit(main())
