"""What restic asks `fusermount` for, done by root itself: mount a folder, hand back the device's descriptor.

Debian's own is in a package that few machines have, and is setuid, for people who are not root.
"""

from __future__ import annotations

import array
import ctypes
import os
import socket
import sys
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV = 1, 2, 4
PASSED_ON = ("default_permissions", "allow_other", "max_read=", "blksize=")


def install(folder: Path) -> None:
    """Put a program `fusermount` into a folder, for a PATH."""
    program = folder / "fusermount"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__)} "$@"\n')
    program.chmod(0o755)


def main(words: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if words[0] == "-u":
        if libc.umount2(words[1].encode(), 0):
            sys.exit(os.strerror(ctypes.get_errno()))
        return
    options = words[words.index("-o") + 1].split(",")
    device = os.open("/dev/fuse", os.O_RDWR)
    data = [f"fd={device}", "rootmode=40000", "user_id=0", "group_id=0"]
    data += [option for option in options if option.startswith(PASSED_ON)]
    flags = MS_NOSUID | MS_NODEV | (MS_RDONLY if "ro" in options else 0)
    if libc.mount(b"restic", words[-1].encode(), b"fuse.restic", flags, ",".join(data).encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
    with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as caller:
        passed = array.array("i", [device])
        caller.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])


if __name__ == "__main__":
    main(sys.argv[1:])
