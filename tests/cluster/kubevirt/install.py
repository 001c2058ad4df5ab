"""Installs KubeVirt on a running cluster and waits until it serves."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import yaml

from tests.cluster import images, objects
from tests.cluster.build import Upstream, say
from tests.cluster.guest.image import guest_image
from tests.cluster.guest.upstream import GUEST
from tests.cluster.kubevirt.image import CONTROL_IMAGE, NODE_IMAGE, control_image, node_image
from tests.cluster.kubevirt.upstream import KUBEVIRT, VERSION, program
from tests.cluster.layout import Cluster

NAMESPACE = "kubevirt"
WAIT = "--timeout=300s"

Object = dict[str, Any]


class KubeVirt:
    """KubeVirt, and the guest that tests start in it: an addition of `lifecycle.up`."""

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """What it needs built."""
        return (KUBEVIRT, GUEST)

    def install(self, cluster: Cluster) -> None:
        """Installs it unless it serves already. Raises ObjectsFailed when it does not within minutes."""
        images.load(cluster, guest_image())
        if is_deployed(cluster):
            say(f"cluster {cluster.name}: KubeVirt {VERSION} is there")
            return
        started = time.monotonic()

        def reached(what: str) -> None:
            say(f"cluster {cluster.name}: {what} after {time.monotonic() - started:.0f} s")

        for image in (control_image(), node_image()):
            images.load(cluster, image)
            reached(f"image {image.name} imported")
        apply = ("apply", "--server-side", "--force-conflicts", "-f", "-")
        objects.kubectl(cluster, *apply, stdin=yaml.safe_dump_all(operator_objects()))
        crd = "customresourcedefinition/kubevirts.kubevirt.io"
        objects.kubectl(cluster, "wait", "--for=condition=Established", WAIT, crd)
        objects.kubectl(cluster, *apply, stdin=yaml.safe_dump(kubevirt_object()))
        wait(cluster)
        reached(f"KubeVirt {VERSION} deployed")


def is_deployed(cluster: Cluster) -> bool:
    """Whether KubeVirt says so."""
    found = objects.kubectl(
        cluster, "get", "customresourcedefinition", "kubevirts.kubevirt.io", "--ignore-not-found", "-o=name"
    )
    if not found:
        return False
    phase = objects.kubectl(
        *(cluster, "get", "kubevirt", "kubevirt", f"--namespace={NAMESPACE}"),
        *("--ignore-not-found", "-o=jsonpath={.status.phase}"),
    )
    return phase == "Deployed"


def wait(cluster: Cluster) -> None:
    """Until VMs can be created and their subresources be called."""
    deployed = "--for=jsonpath={.status.phase}=Deployed"
    objects.kubectl(cluster, "wait", deployed, WAIT, f"--namespace={NAMESPACE}", "kubevirt/kubevirt")
    service = "apiservice/v1.subresources.kubevirt.io"
    objects.kubectl(cluster, "wait", "--for=condition=Available", WAIT, service)


def operator_objects() -> list[Object]:
    """The namespace, and what KubeVirt's generators print for virt-operator: one replica for our one node."""
    arguments = [f"-namespace={NAMESPACE}", f"-version={VERSION}"]
    arguments += [f"-control-image={CONTROL_IMAGE}", f"-node-image={NODE_IMAGE}"]
    printed = subprocess.run(
        [str(program("operator-manifests")), *arguments], check=True, capture_output=True, text=True
    ).stdout
    generated = [each for each in yaml.safe_load_all(printed) if each]
    for each in generated:
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = 1
    labels = {"kubevirt.io": "", "pod-security.kubernetes.io/enforce": "privileged"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    return [namespace, *generated]


def kubevirt_object() -> Object:
    """How KubeVirt runs here: software emulation where there is no /dev/kvm, one of each.

    No VMExport: its server is not part of our build, and its pod would crash for ever.
    """
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": NAMESPACE},
        "spec": {
            "imagePullPolicy": "IfNotPresent",
            "infra": {"replicas": 1},
            "configuration": {
                "imagePullPolicy": "IfNotPresent",
                "developerConfiguration": {"useEmulation": True, "featureGates": ["Snapshot"]},
            },
        },
    }
