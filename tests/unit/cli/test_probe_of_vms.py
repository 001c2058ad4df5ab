"""`repo probe --vms`: does the password fit the repositories of the VMs that are there already?"""

from __future__ import annotations

from pathlib import Path

import pytest
from coeval.cli import session
from coeval.repository import below
from coeval.repository.store import Kind, open_store

from tests.tools.repositories import PASSWORD, new_repository, run_coeval
from tests.tools.servers import S3Server


class Place:
    """What a BackupRepository names: a folder or a bucket, with the repositories of VMs below it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.password_file = url, folder / "password"
        self.password_file.write_text(PASSWORD)

    def make(self, *paths: str) -> None:
        for path in paths:
            new_repository(open_store(f"{self.url}/{path}"))

    def probe(self, *, code: int = 0) -> dict[str, object]:
        words = ["--repository", self.url, "--password-file", str(self.password_file), "--vms"]
        return run_coeval("repo", "probe", *words, code=code)

    def refused(self) -> str:
        error = self.probe(code=1)["error"]
        assert isinstance(error, dict) and error["reason"] == "WrongPassword"
        return str(error["message"])


@pytest.fixture(params=["file", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return Place(f"file://{tmp_path}/claim", tmp_path)
    gateway: S3Server = request.getfixturevalue("gateway")
    return Place(f"s3://{gateway.bucket()}/prod", tmp_path)


def test_the_password_of_what_is_there(place: Place) -> None:
    assert place.probe() == {"writable": True, "repository": None, "opened": None}
    place.make("shop/db", "shop/web", "other/db")
    assert place.probe()["opened"] in ("shop/db", "shop/web", "other/db")
    place.password_file.write_text("another")
    message = place.refused()
    for path in ("shop/db", "shop/web", "other/db"):
        assert path in message
    assert "put back the one that they were made with" in message
    # Without --vms nothing below is looked at.
    words = ["--repository", place.url, "--password-file", str(place.password_file)]
    assert run_coeval("repo", "probe", *words) == {"writable": True, "repository": None}


def test_one_that_is_not_ours_does_not_make_the_password_wrong(place: Place) -> None:
    place.make("a/foreign")
    place.password_file.write_text("another")
    assert "(a/foreign)" in place.refused()
    run_coeval(
        *("repo", "init", "--repository", f"{place.url}/shop/db"),
        *("--password-file", str(place.password_file)),
    )
    assert place.probe()["opened"] == "shop/db"


def test_damage_says_nothing_about_the_password(place: Place) -> None:
    place.make("shop/db")
    store = open_store(f"{place.url}/shop/db")
    [(key, _)] = store.entries(Kind.KEY)
    store.remove(Kind.KEY, key)
    store.save(Kind.KEY, key, [b"{}"])
    assert place.probe()["opened"] is None


def test_few_are_tried_and_few_folders_looked_into(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.make(*(f"shop/vm{number}" for number in range(session.TRIED + 2)))
    place.password_file.write_text("another")
    assert place.refused().count("shop/vm") == session.TRIED
    monkeypatch.setattr(below, "LOOKED_AT", 1)
    assert place.refused().count("shop/vm") == 1


def test_other_folders_are_passed_over(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/claim", tmp_path)
    place.make("shop/db", "lost+found/db", "Shop/db", "deep/er/db")
    (tmp_path / "claim/shop/file").write_text("no folder")
    (tmp_path / "claim/file").write_text("no folder")
    place.password_file.write_text("another")
    assert "(shop/db)" in place.refused()
