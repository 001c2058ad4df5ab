"""The process: what it says and how it ends when it cannot start, run as a user would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def operator(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("COEVAL_", "KUBE"))}
    return subprocess.run(
        [sys.executable, "-m", "coeval.cli.main", "operator"],
        env=clean | {"HOME": str(tmp_path)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_wrong_settings_end_it_at_once_and_are_named(tmp_path: Path) -> None:
    done = operator(tmp_path, COEVAL_IMAGE="i", COEVAL_LOG_LEVEL="LOUD")
    assert done.returncode == 2
    assert "COEVAL_NAMESPACE" in done.stderr
    assert "COEVAL_LOG_LEVEL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kubeconfig", [None, "missing.yaml"])
def test_without_a_way_to_the_api_server_it_says_so(tmp_path: Path, kubeconfig: str | None) -> None:
    more = {"COEVAL_KUBECONFIG": str(tmp_path / kubeconfig)} if kubeconfig else {}
    done = operator(tmp_path, COEVAL_NAMESPACE="coeval-system", COEVAL_IMAGE="i", **more)
    assert done.returncode == 2
    assert "no way to the API server" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
