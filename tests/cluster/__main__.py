"""`python -m tests.cluster`: the test Kubernetes from the command line."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tests.cluster import build as building
from tests.cluster import host, images, lifecycle, objects, upstreams
from tests.cluster.kubevirt.install import KubeVirt
from tests.cluster.layout import Cluster

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Name = Annotated[str, typer.Option("--name", help="Clusters of different names do not touch each other.")]
EXPECTED = (
    building.BuildFailed,
    host.NotPossible,
    images.ImageFailed,
    lifecycle.StartFailed,
    objects.ObjectsFailed,
)


WithoutKubeVirt = Annotated[
    bool, typer.Option("--without-kubevirt", help="Plain Kubernetes with the test drivers.")
]


@app.command()
def up(name: Name = "default", without_kubevirt: WithoutKubeVirt = False) -> None:
    """Build what is missing and start the cluster; what a crash left of it is cleared first."""
    lifecycle.up(Cluster(name), [] if without_kubevirt else [KubeVirt()])


@app.command()
def kubevirt(name: Name = "default") -> None:
    """Put KubeVirt on a cluster that was started without it; `up` does this as its last step."""
    lifecycle.up(Cluster(name), [KubeVirt()])


@app.command()
def down(name: Name = "default") -> None:
    """End the cluster; nothing of it stays."""
    lifecycle.down(Cluster(name))


@app.command()
def status(name: Name = "default") -> None:
    """Say which services run."""
    print(lifecycle.status(Cluster(name)))


@app.command(context_settings={"ignore_unknown_options": True})
def run(command: list[str], name: Name = "default") -> None:
    """Run a command inside the cluster's mount, network and pid namespaces."""
    raise typer.Exit(lifecycle.run(Cluster(name), command))


@app.command()
def image(name: Name = "default") -> None:
    """Build localhost/coeval:dev from the tree as it is and import it."""
    images.refresh(Cluster(name))


@app.command()
def build(names: Annotated[list[str] | None, typer.Argument(help="All when none is named.")] = None) -> None:
    """Build the programs that are not built yet."""
    known = {upstream.name: upstream for upstream in (*upstreams.ALL, *KubeVirt().upstreams)}
    unknown = set(names or ()) - set(known)
    if unknown:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    host.ensure_packages()
    building.ensure(known[name] for name in (names or known))


if __name__ == "__main__":
    try:
        app()
    except EXPECTED as error:
        sys.exit(f"{type(error).__name__}: {error}")
