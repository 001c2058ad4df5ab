"""`make test-cluster`: what needs root and no cluster, then a cluster of its own and everything on it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from tests.cluster import host

NAME = "test"
PYTHON = sys.executable
ROOT = Path(__file__).resolve().parents[2]


def pytest(expression: str, *more: str, env: dict[str, str] | None = None) -> int:
    """Run the end-to-end tests that `expression` selects."""
    argv = [PYTHON, "-m", "pytest", "-q", "--durations=15", "tests/e2e", "-m", expression, *more]
    return subprocess.run(argv, cwd=ROOT, env={**os.environ, **(env or {})}, check=False).returncode


def cluster(verb: str, name: str) -> None:
    """Call the cluster's command line."""
    subprocess.run([PYTHON, "-m", "tests.cluster", verb, "--name", name], cwd=ROOT, check=True)


def main() -> int:
    """0 where every test passed; the cluster is ended either way, unless asked to keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the cluster running")
    parser.add_argument("rest", nargs="*", help="more arguments for pytest")
    options = parser.parse_args()
    host.ensure_packages()
    if alone := pytest("not cluster and not kubevirt", *options.rest):
        return alone
    # What a killed run left on it (ended backups, injected faults) would be taken for this run's own.
    cluster("down", NAME)
    cluster("up", NAME)
    try:
        return pytest("cluster or kubevirt", *options.rest, env={"COEVAL_CLUSTER": NAME})
    finally:
        if not options.keep:
            cluster("down", NAME)


if __name__ == "__main__":
    sys.exit(main())
