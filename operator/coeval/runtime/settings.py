"""What the environment says, checked before anything starts; all that is wrong is told at once."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from coeval.controllers.settings import Settings

PREFIX = "COEVAL_"


class SettingsError(Exception):
    """The environment cannot be used; the message lists every variable that is wrong, and no value."""


class RuntimeSettings(BaseModel):
    """`COEVAL_<NAME>` for each field; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
    image: Annotated[str, Field(min_length=1, pattern=r"^\S+$")]
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    block_mover_uid: Annotated[
        Literal[0, 107], BeforeValidator(lambda text: {"0": 0, "107": 107}.get(text, text))
    ] = 107  # KubeVirt's own
    # How long a CSI snapshot may take until it is ready to use.
    snapshot_deadline: Annotated[float, Field(ge=10)] = 300.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    http_host: str | None = None  # None: every address of the pod
    http_port: Annotated[int, Field(ge=1, le=65535)] = 8080
    pod_name: Annotated[str, Field(min_length=1)] = Field(default_factory=socket.gethostname)
    kubeconfig: Path | None = None  # None: the pod's service account, or $KUBECONFIG outside of a pod
    resync_seconds: Annotated[float, Field(ge=5)] = 300.0
    shutdown_seconds: Annotated[float, Field(ge=0)] = 20.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "RuntimeSettings":
        """Raises SettingsError. An empty variable counts as absent."""
        given = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := PREFIX + name.upper())
        }
        try:
            # By way of text, as an environment is: a number may come as "107".
            return cls.model_validate_strings(given)
        except ValidationError as error:
            wrong = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors()]
            raise SettingsError("; ".join(wrong)) from None

    def controllers(self) -> Settings:
        """The part that controllers see."""
        return Settings(
            namespace=self.namespace,
            image=self.image,
            image_pull_policy=self.image_pull_policy,
            block_mover_as_root=self.block_mover_uid == 0,
            snapshot_deadline=self.snapshot_deadline,
        )
