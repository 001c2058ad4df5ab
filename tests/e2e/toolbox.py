"""A pod that holds claims so that a test reads their bytes past everything that we wrote."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.harness import CommandFailed, Kubectl, Object

IMAGE = "localhost/coeval:dev"


def pod(name: str, namespace: str, claims: Mapping[str, str]) -> Object:
    """A pod that sleeps, with each claim (name → volumeMode) at /claims/<claim>."""
    block = [claim for claim, mode in claims.items() if mode == "Block"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 107,
                "runAsGroup": 107,
                "fsGroup": 107,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "tools",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sleep", "infinity"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [
                        {"name": claim, "mountPath": f"/claims/{claim}"}
                        for claim in claims
                        if claim not in block
                    ],
                    "volumeDevices": [{"name": claim, "devicePath": f"/claims/{claim}"} for claim in block],
                }
            ],
            "volumes": [{"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in claims],
        },
    }


@contextmanager
def toolbox(kubectl: Kubectl, name: str, namespace: str, claims: Mapping[str, str]) -> Iterator["Toolbox"]:
    """The pod, running; gone afterwards."""
    kubectl.delete("pod", name, namespace)
    kubectl.apply(pod(name, namespace, claims))
    try:
        kubectl("wait", "pod", name, "-n", namespace, "--for=condition=Ready", "--timeout=120s")
        yield Toolbox(kubectl, name, namespace)
    finally:
        kubectl.delete("pod", name, namespace)


class Toolbox:
    """What a test asks of the pod."""

    def __init__(self, kubectl: Kubectl, name: str, namespace: str) -> None:
        self._exec = ("exec", "-n", namespace, name, "--")
        self._kubectl = kubectl

    def __call__(self, *argv: str) -> str:
        """Run a program in the pod."""
        return self._kubectl(*self._exec, *argv, timeout=600)

    def sha256(self, path: str) -> str:
        """Of a file or a whole device."""
        return self("sha256sum", path).split()[0].lstrip("\\")

    def fetch(self, path: str, target: Path) -> Path:
        """The folder at `path`, as it is now, copied to `target` on this machine."""
        target.mkdir(parents=True, exist_ok=True)
        tar = [
            "tar",
            "--create",
            "--file=-",
            "--sparse",
            f"--directory={path}",
            "--exclude=./lost+found",
            ".",
        ]
        with subprocess.Popen(self._kubectl.argv(*self._exec, *tar), stdout=subprocess.PIPE) as sender:
            done = subprocess.run(
                ["tar", "--extract", "--file=-", f"--directory={target}", "--no-same-owner"],
                stdin=sender.stdout,
                capture_output=True,
                text=True,
                check=False,
            )
        # 1: a file changed while it was read, which is what a repository in use does
        if done.returncode != 0 or sender.returncode not in (0, 1):
            raise CommandFailed(
                f"copy of {path}: tar exits {sender.returncode} and {done.returncode}: {done.stderr}"
            )
        return target
