"""What a test or the demo does on a cluster: kubectl as a user has it, and waiting by condition."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

ROOT = Path(__file__).resolve().parents[2]
OPERATOR_NAMESPACE = "coeval-system"

Object = dict[str, Any]
T = TypeVar("T")


class CommandFailed(AssertionError):
    """A program ended with an error; the message holds what it said."""


def command(
    *argv: str | Path,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 300,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and fail with its own words."""
    done = subprocess.run(
        [str(a) for a in argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=env,
        cwd=ROOT,
    )
    if check and done.returncode != 0:
        raise CommandFailed(
            f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stderr or done.stdout}"
        )
    return done


@dataclass(frozen=True)
class Kubectl:
    """`kubectl` against one cluster."""

    kubeconfig: Path

    def __call__(
        self, *args: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 300
    ) -> str:
        """Its standard output."""
        return self.run(*args, stdin=stdin, check=check, timeout=timeout).stdout

    def run(
        self, *args: str | Path, stdin: str | None = None, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """The ended program, where its error matters too."""
        return command(*self.argv(*args), stdin=stdin, check=check, timeout=timeout)

    def argv(self, *args: str | Path) -> list[str]:
        """The command line, for a caller that runs it in its own way."""
        own = self.kubeconfig.parent / "bin" / "kubectl"
        program = own if own.exists() else "kubectl"
        return [str(program), f"--kubeconfig={self.kubeconfig}", *map(str, args)]

    def apply(self, *objects: Object) -> None:
        """Apply objects, strictly: a field that the schema does not know is an error."""
        self("apply", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """The object as it is now, or None."""
        where = ["-n", namespace] if namespace else []
        text = self("get", kind, name, *where, "--ignore-not-found", "-o", "json")
        return json.loads(text) if text.strip() else None

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """All objects of a kind, in one namespace or in all."""
        where = ["-n", namespace] if namespace else ["-A"]
        found: list[Object] = json.loads(self("get", kind, *where, "-l", selector, "-o", "json"))["items"]
        return found

    def delete(self, kind: str, name: str, namespace: str | None = None, *, wait: bool = True) -> None:
        """Delete, and by default wait until it is gone."""
        where = ["-n", namespace] if namespace else []
        self("delete", kind, name, *where, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def wait(
        self,
        kind: str,
        name: str,
        namespace: str | None,
        reached: Callable[[Object], bool],
        *,
        what: str,
        seconds: float = 180,
    ) -> Object:
        """Poll the live object until `reached`; on time-out fail with its status."""
        last: Object | None = None

        def look() -> Object | None:
            nonlocal last
            last = self.get(kind, name, namespace)
            return last if last is not None and reached(last) else None

        try:
            return until(look, what=what, seconds=seconds)
        except TimeoutError as late:
            status = json.dumps((last or {}).get("status"), indent=1)
            raise TimeoutError(f"{late}; {kind} {namespace}/{name} has status {status}") from None


def until(look: Callable[[], T | None], *, what: str, seconds: float, every: float = 0.25) -> T:
    """The first answer of `look` that is not None."""
    end = time.monotonic() + seconds
    while True:
        answer = look()
        if answer is not None:
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def condition(obj: Object, kind: str) -> Object:
    """The object's condition of that type, {} where there is none."""
    for found in obj.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return dict(found)
    return {}
