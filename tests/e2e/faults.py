"""Faults of the test CSI drivers while a backup runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.cluster import lifecycle, processes
from tests.cluster.csi.faults import FILE, parse
from tests.cluster.layout import DRIVERS, Cluster
from tests.e2e.harness import Kubectl


def volume_handle(kubectl: Kubectl, namespace: str, claim: str) -> str:
    """The CSI handle of a bound claim's volume."""
    bound = kubectl.get("pvc", claim, namespace)
    assert bound is not None
    volume = kubectl.get("pv", bound["spec"]["volumeName"])
    assert volume is not None
    return str(volume["spec"]["csi"]["volumeHandle"])


@contextmanager
def injected(cluster: Cluster, short: str, **faults: dict[str, Any]) -> Iterator[None]:
    """Method → behaviour, of the driver `short`; none afterwards."""
    store = cluster.store(next(driver for driver in DRIVERS if driver.short == short))
    text = json.dumps(faults)
    parse(text)
    # The store is only mounted inside the cluster, and the driver must never see half of the file.
    write = f'echo "$1" > {store}/{FILE}.new && mv {store}/{FILE}.new {store}/{FILE}'
    _inside(cluster, "sh", "-c", write, "sh", text)
    try:
        yield
    finally:
        _inside(cluster, "rm", "-f", f"{store}/{FILE}")


def backend(cluster: Cluster, short: str, kind: str) -> set[str]:
    """Handles of the `volumes` or `snapshots` that the driver `short` really has."""
    store = cluster.store(next(driver for driver in DRIVERS if driver.short == short))
    init = processes.init_of(cluster)
    # The store is only mounted inside the cluster.
    return {path.stem for path in Path(f"/proc/{init}/root{store}/{kind}").glob("*.json")}


def _inside(cluster: Cluster, *command: str) -> None:
    status = lifecycle.run(cluster, list(command))
    assert status == 0, f"{command[0]} inside cluster {cluster.name}: exit {status}"
