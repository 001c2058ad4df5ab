"""What decides whether a program is built again, and what a failed or killed build leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.cluster import build, upstreams
from tests.cluster.build import BuildFailed, Target, Upstream

SAMPLE = Upstream(name="sample", targets=(Target("tool", "example.org/tool", 5),))


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "WRAPPERS", tmp_path / "wrappers")
    monkeypatch.setattr(build, "_go_version", lambda: "go1.0")
    (tmp_path / "wrappers" / "sample").mkdir(parents=True)
    (tmp_path / "wrappers" / "sample" / "go.mod").write_text("module sample\n")
    build.directory.cache_clear()


def directory(upstream: Upstream) -> Path:
    build.directory.cache_clear()
    return build.directory(upstream)


@pytest.mark.parametrize(
    "change",
    [
        {"tags": ("x",)},
        {"ldflags": ()},
        {"cgo": True},
        {"mod": "mod"},
        {"env": (("GOEXPERIMENT", "x"),)},
        {"targets": (Target("tool", "example.org/other", 5),)},
    ],
)
def test_whatever_changes_the_result_changes_the_folder(change: dict[str, object]) -> None:
    assert directory(dataclasses.replace(SAMPLE, **change)) != directory(SAMPLE)  # type: ignore[arg-type]


def test_an_estimate_does_not_change_the_folder() -> None:
    slower = dataclasses.replace(SAMPLE, targets=(Target("tool", "example.org/tool", 500),))
    assert directory(slower) == directory(SAMPLE)


def test_a_changed_pin_changes_the_folder() -> None:
    before = directory(SAMPLE)
    (SAMPLE.wrapper / "go.sum").write_text("x\n")
    assert directory(SAMPLE) != before


def test_a_failed_build_is_no_build_and_the_next_one_clears_it() -> None:
    def fail(upstream: Upstream, into: Path) -> None:
        (into / "half").touch()
        build.run_reporting(["sh", "-c", "echo the reason; exit 3"], "building sample", 1, into)

    def succeed(upstream: Upstream, into: Path) -> None:
        (into / "tool").touch()

    with pytest.raises(BuildFailed, match="exit status 3:\nthe reason"):
        build.ensure([dataclasses.replace(SAMPLE, build=fail)])
    assert not build.is_built(SAMPLE)
    build.ensure([dataclasses.replace(SAMPLE, build=succeed)])
    final = build.directory(SAMPLE)
    assert [path.name for path in final.iterdir()] == ["tool"]
    assert [path.name for path in final.parent.iterdir() if path.is_dir()] == [final.name]


def test_what_is_built_is_not_built_again() -> None:
    calls = []
    upstream = dataclasses.replace(SAMPLE, build=lambda *_: calls.append(1))
    build.ensure([upstream])
    build.ensure([upstream])
    assert calls == [1]


@pytest.mark.parametrize("upstream", upstreams.ALL, ids=lambda upstream: upstream.name)
def test_every_upstream_is_pinned(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    text = (upstream.wrapper / "go.mod").read_text()
    assert (upstream.wrapper / "go.sum").exists()
    for target in upstream.targets:
        assert target.package in text, "go mod tidy drops what no tool line names"
