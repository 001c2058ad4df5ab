"""What an administrator can set; the runtime fills it from its environment."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """Times are in seconds."""

    namespace: str = "coeval-system"
    image: str = "localhost/coeval:dev"
    image_pull_policy: str = "IfNotPresent"
    mover_service_account: str = "coeval-mover"
    mover_requests: dict[str, str] = field(default_factory=lambda: {"cpu": "100m", "memory": "256Mi"})
    mover_limits: dict[str, str] = field(default_factory=lambda: {"memory": "2Gi"})
    # Where the runtime does not hand block devices to uid 107 (device_ownership_from_security_context).
    block_mover_as_root: bool = False
    parallel_movers: int = 4

    # How long what preflight found may take to heal: GitOps creates things in any order.
    preflight_grace: float = 20.0

    # The guest's safety timer, and how long before it fires the release must have been sent.
    freeze_timeout: int = 60
    freeze_margin: float = 5.0
    # VSS thaws by itself after 10 s.
    windows_freeze_timeout: int = 8
    windows_freeze_margin: float = 1.0
    # A pause has no safety timer; this bounds the window all the same.
    pause_timeout: int = 60
    # A driver that has answered with errors so long is not waited for with the guest held.
    error_patience: float = 20.0
    # A call without an answer may still act this long after it was sent.
    late_answer: float = 10.0
    moment_attempts: int = 3

    # fsFreezeStatus is polled by KubeVirt every 5 s: two looks this far apart are two polls.
    clear_poll: float = 6.0
    release_repeat: float = 2.0

    snapshot_deadline: float = 300.0
    # A claim from a snapshot bound, a mover's pod started.
    expose_deadline: float = 600.0

    window_poll: float = 0.3
    work_poll: float = 3.0

    forget_deadline: int = 300
    # How long the end waits for a driver to finish the removal of an original snapshot.
    removal_grace: float = 120.0

    probe_interval: float = 1800.0
    probe_retry: float = 60.0
    probe_deadline: int = 120

    def margin(self, timer: float) -> float:
        """How long before a safety timer of this length fires the release must have been sent."""
        return self.windows_freeze_margin if timer <= self.windows_freeze_timeout else self.freeze_margin
