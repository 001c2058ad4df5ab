"""`restic mount`: a backup of ours as files that anybody can read, a file on its own or a piece of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from tests.tools import fusermount
from tests.tools.repositories import PASSWORD, Cli
from tests.tools.restic import restic_binary

pytestmark = [
    pytest.mark.restic,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="mounting needs root and /dev/fuse"
    ),
]

MIB = 1 << 20


def test_restic_mounts_ours(tmp_path: Path) -> None:
    cli = Cli(tmp_path)
    content = random.Random(1).randbytes(3 * MIB) + bytes(2 * MIB) + b"the end"  # noqa: S311
    (tmp_path / "a").write_bytes(content)
    snapshot = cli.copy(tmp_path / "a", "root", "--as-of", "2026-01-01T00:00:00Z")
    place = tmp_path / "mounted"
    place.mkdir()
    fusermount.install(tmp_path)
    environment = os.environ | {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "RESTIC_REPOSITORY": str(cli.repository),
        "RESTIC_PASSWORD": PASSWORD,
    }
    # In a mount namespace that ends with restic, which ends with us: no mount is left, whatever happens.
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--propagation", "private"]
    command += [str(restic_binary()), "--no-cache", "mount", str(place)]
    mounting = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert mounting.stdout
        said = ""
        while "Now serving" not in said:
            line = mounting.stdout.readline()
            assert line, said
            said += line
        seen = Path(f"/proc/{mounting.pid}/root{place}")
        image = seen / f"ids/{snapshot[:8]}/disks/root/disk.img"
        assert image.read_bytes() == content
        with image.open("rb") as file:
            file.seek(3 * MIB - 5)
            assert file.read(10) == content[3 * MIB - 5 : 3 * MIB + 5]
        assert not list(place.iterdir()), "nothing of it is seen outside"
        mounting.send_signal(signal.SIGINT)
        mounting.communicate(timeout=60)
    finally:
        mounting.kill()
        mounting.communicate()
    assert mounting.returncode in (0, 130)
    assert not list((cli.repository / "locks").iterdir())
