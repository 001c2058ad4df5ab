"""Which volume capabilities this driver has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.cluster.csi.protos import load
from tests.cluster.csi.rpc import CsiError

pb: Any = load("csi")
_mode: Any = pb.VolumeCapability.AccessMode

READERS: Final = {_mode.SINGLE_NODE_READER_ONLY, _mode.MULTI_NODE_READER_ONLY}
# ext4 on one device: never writable on two nodes at once.
FILESYSTEM: Final = {
    *READERS,
    _mode.SINGLE_NODE_WRITER,
    _mode.SINGLE_NODE_SINGLE_WRITER,
    _mode.SINGLE_NODE_MULTI_WRITER,
}
BLOCK: Final = {*FILESYSTEM, _mode.MULTI_NODE_SINGLE_WRITER, _mode.MULTI_NODE_MULTI_WRITER}
FILESYSTEM_TYPES: Final = {"", "ext4"}


def mode_of(capability: Any) -> str:
    """Block or Filesystem. Raises CsiError InvalidArgument for what we cannot do."""
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise CsiError("InvalidArgument", "a volume capability names neither block nor mount")
    if kind == "mount" and capability.mount.fs_type not in FILESYSTEM_TYPES:
        raise CsiError("InvalidArgument", f"filesystem {capability.mount.fs_type} is not supported, ext4 is")
    if capability.access_mode.mode not in (BLOCK if kind == "block" else FILESYSTEM):
        name = _mode.Mode.Name(capability.access_mode.mode)
        raise CsiError("InvalidArgument", f"access mode {name} is not supported for a {kind} volume")
    return "Block" if kind == "block" else "Filesystem"


def common_mode(capabilities: Iterable[Any]) -> str:
    """The one mode of all of them. Raises CsiError InvalidArgument if there is none, or more than one."""
    modes = {mode_of(capability) for capability in capabilities}
    if len(modes) != 1:
        raise CsiError("InvalidArgument", "volume_capabilities must name one volume mode, block or mount")
    return modes.pop()


def is_reader(capability: Any) -> bool:
    return capability.access_mode.mode in READERS
