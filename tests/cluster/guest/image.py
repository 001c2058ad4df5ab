"""The image whose pods fill volumes with the guest's boot disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cluster.build import directory
from tests.cluster.guest.upstream import GUEST, boot_disk, populate_program
from tests.cluster.images import Image, cached_layer

IMAGE = "localhost/coeval-guest:dev"


def guest_image() -> Image:
    """The image of populate pods: one static program and the compressed boot disk."""
    disk = boot_disk().with_name("disk.img.gz")
    files = (populate_program(), disk)

    def make(root: Path) -> None:
        for path in files:
            shutil.copy(path, root / path.name)

    layer = cached_layer("guest", [str(directory(GUEST)).encode()], make)
    return Image(IMAGE, (layer,), {"Entrypoint": ["/populate"], "User": "107:107"})
