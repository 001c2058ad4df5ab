"""The operator's life: settings, health, Lease, watches, queues, controllers, and the way out.

server first, so that a standby replica answers its probes
→ every kind that we need is served
→ the Lease is ours
→ watches deliver keys, the resync lists them all, workers reconcile
→ SIGTERM: no new key, workers finish, events are written, the Lease is released
→ Lease lost or a watch dead: exit with 1 at once; whoever comes next finds the truth in status
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from datetime import UTC, datetime

from kubernetes.aio.config import ConfigException

from coeval import __version__
from coeval.controllers.backuprepository.controller import BackupRepositoryController
from coeval.controllers.vmbackup.controller import VMBackupController
from coeval.kube.client import Client
from coeval.kube.events import EventRecorder
from coeval.kube.kinds import BACKUP_REPOSITORY, VM_BACKUP
from coeval.kube.lease import LeaseLost
from coeval.kube.port import Kind
from coeval.runtime import logs
from coeval.runtime.controller import Controller
from coeval.runtime.operator import Operator
from coeval.runtime.settings import RuntimeSettings, SettingsError
from coeval.runtime.watch import WatchEnded

log = logging.getLogger(__name__)


class SystemClock:
    """The wall clock."""

    def now(self) -> datetime:
        """Aware, in UTC."""
        return datetime.now(UTC)


def run() -> None:
    """Run until SIGTERM (exit 0), or until going on would be wrong (exit 1); wrong settings exit with 2."""
    try:
        settings = RuntimeSettings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"coeval operator: {error}\n")
        sys.exit(2)
    logs.set_up(settings.log_level, settings.log_format)
    log.info("starting", extra={"version": __version__, "pod": settings.pod_name})
    sys.exit(asyncio.run(serve(settings)))


async def serve(settings: RuntimeSettings) -> int:
    """The exit code."""
    try:
        client = await Client.connect(settings.kubeconfig)
    except (ConfigException, OSError) as error:
        log.error("no way to the API server", extra={"error": str(error)})
        return 2
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    recorder = EventRecorder(client, instance=settings.pod_name)
    given = settings.controllers()
    controllers: dict[Kind, Controller] = {
        VM_BACKUP: VMBackupController(client, recorder, SystemClock(), given),
        BACKUP_REPOSITORY: BackupRepositoryController(client, recorder, SystemClock(), given),
    }
    code = 0
    try:
        await Operator(settings, client, recorder, controllers).run(stop)
    except* (LeaseLost, WatchEnded) as ended:
        log.error("ending", extra={"errors": [str(e) for e in ended.exceptions]})
        code = 1
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                await client.close()
    log.info("ended", extra={"code": code})
    return code
