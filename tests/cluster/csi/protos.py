"""Python messages of CSI and of kubelet's plugin registration, generated from their Go modules.

`python -m tests.cluster.csi.protos` generates them; so does the first import that misses them. They are not
in the tree, because they are build products that belong to one version of protobuf.
"""

from __future__ import annotations

import fcntl
import importlib
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GENERATED: Final = Path(__file__).parent / "gen"


@dataclass(frozen=True)
class Proto:
    """One .proto of a Go module, and the name under which we generate it."""

    module: str
    file: str
    name: str


PROTOS: Final = (
    Proto("github.com/container-storage-interface/spec@v1.12.0", "csi.proto", "csi"),
    # The Kubernetes side of CSI's SnapshotMetadata, to try our own client's messages against.
    Proto(
        "github.com/kubernetes-csi/external-snapshot-metadata@v1.1.0",
        "proto/schema.proto",
        "snapshotmetadata",
    ),
    Proto("k8s.io/kubelet@v0.36.4", "pkg/apis/pluginregistration/v1/api.proto", "pluginregistration"),
)


def _stamp() -> str:
    """What the generated files depend on: they are made anew when it changes."""
    tools = importlib.metadata.version("grpcio-tools")
    return "\n".join([f"grpcio-tools {tools}", *(f"{proto.module} {proto.file}" for proto in PROTOS)]) + "\n"


def _module_directory(module: str) -> Path:
    """The unpacked Go module, downloaded if need be and checked against Go's checksum database."""
    # Outside of any module, so that no go.mod around us has a say.
    with tempfile.TemporaryDirectory() as nowhere:
        done = subprocess.run(
            ["go", "mod", "download", "-json", module],
            cwd=nowhere,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"go mod download {module}: {done.stdout}{done.stderr}")
    return Path(json.loads(done.stdout)["Dir"])


def _generate(into: Path) -> None:
    from grpc_tools import protoc

    wellknown = Path(protoc.__file__).parent / "_proto"
    sources = into / "proto"
    sources.mkdir()
    for proto in PROTOS:
        shutil.copyfile(_module_directory(proto.module) / proto.file, sources / f"{proto.name}.proto")
    arguments = ["protoc", f"-I{sources}", f"-I{wellknown}", f"--python_out={into}"]
    if protoc.main([*arguments, *(f"{proto.name}.proto" for proto in PROTOS)]):
        raise RuntimeError("protoc refused the CSI protos, see its message above")
    (into / "__init__.py").touch()
    (into / "STAMP").write_text(_stamp())


def ensure() -> None:
    """Generate the messages unless the present ones fit; two processes may call this at once."""
    stamp = GENERATED / "STAMP"

    def fits() -> bool:
        return stamp.exists() and stamp.read_text() == _stamp()

    if fits():
        return
    with (GENERATED.parent / "__init__.py").open("rb") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # a file that is always there; the kernel lets go if we are killed
        if fits():
            return
        fresh = GENERATED.with_name("gen.new")
        shutil.rmtree(fresh, ignore_errors=True)  # of one that was killed: we hold the lock
        fresh.mkdir()
        _generate(fresh)
        shutil.rmtree(GENERATED, ignore_errors=True)
        fresh.rename(GENERATED)


def load(name: str) -> Any:
    """The generated module of one proto (`csi`, `pluginregistration` or `snapshotmetadata`)."""
    ensure()
    importlib.invalidate_caches()
    return importlib.import_module(f"tests.cluster.csi.gen.{name}_pb2")


if __name__ == "__main__":
    ensure()
    sys.stdout.write(f"{GENERATED}\n")
