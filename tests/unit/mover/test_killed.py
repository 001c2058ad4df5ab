"""A real process is killed at every store call of every data command.

What was acknowledged stays, and the next run ends the work without storing again what is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from coeval.repository.file_store import FileStore
from coeval.repository.store import Kind
from coeval.repository.writer import UPLOADS

from tests.tools.faults import REPLACED, T1, Story, judge
from tests.tools.killed import Killer
from tests.tools.repositories import PASSWORD
from tests.tools.restic import Restic

pytestmark = pytest.mark.restic

LABELS = [label for label, _ in Story.commands(Story.__new__(Story))]


def clone(source: Path, target: Path) -> Path:
    """Copy a repository by links: neither we nor restic ever write to an object that is there."""
    if source.exists():
        shutil.copytree(source, target, copy_function=os.link)
    return target


def listing(repository: Path, *kinds: Kind) -> set[Path]:
    return {
        path.relative_to(repository)
        for kind in kinds
        for path in (repository / kind.value).rglob("*")
        if path.is_file()
    }


KINDS = [Kind.KEY, Kind.PACK, Kind.INDEX, Kind.SNAPSHOT, Kind.LOCK]


@dataclass
class Told:
    """The story on disk: the repository as it stands before each command."""

    folder: Path
    story: Story
    killer: Killer
    snapshots: dict[str, str] = field(default_factory=dict)

    def before(self, label: str) -> Path:
        return self.folder / "before" / label

    def after(self, label: str) -> Path:
        return self.folder / "after" / label

    def run(self, label: str, repository: Path, at: int = -1) -> tuple[int, list[str]]:
        words = dict(self.story.commands())[label](self.snapshots)
        split = next(number for number, word in enumerate(words) if word.startswith("-"))
        access = ["--repository", f"file://{repository}", "--password-file", str(self.folder / "password")]
        result = ["--result", str(self.folder / "result")]
        return self.killer.run([*words[:split], *access, *result, *words[split:]], at)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("story")
    (folder / "password").write_text(PASSWORD)
    for name in ("before", "after"):
        (folder / name).mkdir()
    repository = folder / "repository"
    with Killer() as killer:
        told = Told(folder, Story(folder), killer)
        for label in LABELS:
            clone(repository, told.before(label))
            status, _ = told.run(label, repository)
            document = json.loads((folder / "result").read_text())
            assert status == 0, document
            told.snapshots[label] = str(document.get("snapshot", ""))
            clone(repository, told.after(label))
        yield told


def kept(told: Told, label: str, repository: Path) -> None:
    """Judge what is there, and that no acknowledged snapshot is gone."""
    found = judge(FileStore(str(repository)), told.story.images)
    had = {path.name for path in listing(told.before(label), Kind.SNAPSHOT)}
    assert had - found <= {told.snapshots[of] for of in REPLACED.get(label, set())}


# A sample and a comparison make the same calls as a verify and a retime.
@pytest.mark.parametrize("label", [label for label in LABELS if label not in ("sample", "compare")])
def test_a_process_killed_at_any_store_call_loses_nothing(told: Told, tmp_path: Path, label: str) -> None:
    before, once = told.before(label), len(listing(told.after(label), Kind.PACK))
    _, calls = told.run(label, clone(before, tmp_path / "count"))
    everything = tmp_path / "everything"
    seen = set()
    for at in range(len(calls)):
        repository = clone(before, tmp_path / f"{at}")
        status, _ = told.run(label, repository, at)
        # Threads write packs and index files side by side: a run may need one call less than the other.
        assert status == -9 or (status == 0 and at > len(calls) - 3), f"status {status} at {at}"
        # Between two writes all states are alike: one of them is gone on from.
        made = (repository / "config").exists()
        state = (made, *(len(listing(repository, kind)) for kind in KINDS))
        if state in seen:
            continue
        seen.add(state)
        if made:
            kept(told, label, repository)
        left = listing(repository, Kind.PACK)
        assert told.run(label, repository)[0] == 0
        kept(told, label, repository)
        assert not listing(repository, Kind.LOCK), "a lock of the dead stayed"
        assert len(listing(repository, Kind.PACK)) <= once + UPLOADS, f"at {at}: {len(left)} packs in vain"
        if label in ("init", "data"):
            everything = repository
        else:
            shutil.copytree(repository, everything, copy_function=link_once, dirs_exist_ok=True)
    assert len(seen) > (told.after(label) / "index").is_dir(), "killed with and without a lock"
    # Names are never the same in two runs, so that no run makes up for what another lacks.
    Restic(everything, PASSWORD).check()
    if label == "restore":
        assert told.story.target.read_bytes() == told.story.images[T1, "root"]
        assert not list(told.folder.glob(".*partial"))


def link_once(source: str, target: str) -> None:
    if not Path(target).exists():
        os.link(source, target)


def test_restic_reads_and_prunes_right_after_a_mover_was_killed(told: Told, tmp_path: Path) -> None:
    repository = clone(told.before("incremental"), tmp_path / "repository")
    _, calls = told.run("incremental", clone(repository, tmp_path / "count"))
    # The last three calls store the snapshot and remove the lock; before them comes the last index file.
    assert told.run("incremental", repository, len(calls) - 3)[0] == -9
    assert listing(repository, Kind.LOCK)
    assert listing(repository, Kind.PACK) > listing(told.before("incremental"), Kind.PACK)
    restic = Restic(repository, PASSWORD)
    restic.run("unlock")
    restic.check()
    restic.run("prune", "--max-unused", "0")
    restic.check()
    assert (
        restic.run("dump", told.snapshots["commit"], "/disks/root/disk.img")
        == (told.story.images[T1, "root"])
    )
