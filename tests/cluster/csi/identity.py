"""CSI Identity, and the registration by which kubelet finds the driver."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tests.cluster.csi.faults import Fault
from tests.cluster.csi.protos import load

pb: Any = load("csi")
registration: Any = load("pluginregistration")
log = logging.getLogger("csi")


class Identity:
    def __init__(self, name: str) -> None:
        self._name = name

    def GetPluginInfo(self, _request: Any, _fault: Fault) -> Any:
        return pb.GetPluginInfoResponse(name=self._name, vendor_version="1")

    def GetPluginCapabilities(self, _request: Any, _fault: Fault) -> Any:
        capability = pb.PluginCapability
        services = [
            capability(service=capability.Service(type=kind))
            for kind in ("CONTROLLER_SERVICE", "SNAPSHOT_METADATA_SERVICE")
        ]
        online = capability(volume_expansion=capability.VolumeExpansion(type="ONLINE"))
        return pb.GetPluginCapabilitiesResponse(capabilities=[*services, online])

    def Probe(self, _request: Any, _fault: Fault) -> Any:
        response = pb.ProbeResponse()
        response.ready.value = True
        return response


class Registration:
    """pluginregistration.v1: kubelet watches its plugins_registry directory and asks each socket there."""

    def __init__(self, name: str, endpoint: Path) -> None:
        self._name = name
        self._endpoint = endpoint

    def GetInfo(self, _request: Any, _fault: Fault) -> Any:
        return registration.PluginInfo(
            type="CSIPlugin", name=self._name, endpoint=str(self._endpoint), supported_versions=["1.0.0"]
        )

    def NotifyRegistrationStatus(self, request: Any, _fault: Fault) -> Any:
        if request.plugin_registered:
            log.info("kubelet has registered %s", self._name)
        else:
            log.error("kubelet refused %s: %s", self._name, request.error)
        return registration.RegistrationStatusResponse()
