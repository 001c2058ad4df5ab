"""The control file of faults: who is hit, and that nonsense is never ignored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.csi import faults
from tests.cluster.csi.faults import BadFaults, Fault, Faults
from tests.cluster.csi.loop import Loop, children


def test_no_file_no_fault(tmp_path: Path) -> None:
    assert Faults(tmp_path).of("CreateSnapshot", "vol") == Fault()


def test_first_behaviour_that_matches_counts(tmp_path: Path) -> None:
    control = {"CreateSnapshot": [{"error": "Aborted", "volume": "one"}, {"delaySeconds": 2}]}
    faults.write(tmp_path, control)
    assert Faults(tmp_path).of("CreateSnapshot", "one") == Fault(volume="one", error="Aborted")
    assert Faults(tmp_path).of("CreateSnapshot", "two") == Fault(delay_seconds=2)
    assert Faults(tmp_path).of("DeleteSnapshot", "one") == Fault()
    faults.clear(tmp_path)
    faults.clear(tmp_path)
    assert Faults(tmp_path).of("CreateSnapshot", "one") == Fault()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"CreateSnapshot": {"notready": true}}', '{"X": 1}', '{"X": {"killAt": "never"}}']
)
def test_what_nobody_understands_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / faults.FILE).write_text(text)
    with pytest.raises(BadFaults):
        Faults(tmp_path).of("CreateSnapshot", "one")


def test_steps_have_names() -> None:
    with pytest.raises(ValueError, match="no step"):
        Fault().reached("somewhere")


def test_loops_on_a_loop_are_files_on_it_and_the_device_itself() -> None:
    store = Loop(number=3, file_device=1, file_inode=10, behind=0, flags=0)
    volume = Loop(number=4, file_device=store.device, file_inode=20, behind=0, flags=0)
    kubelets = Loop(number=5, file_device=6, file_inode=30, behind=volume.device, flags=0)
    everything = [store, volume, kubelets]
    assert children(store, everything) == [volume]
    assert children(volume, everything) == [kubelets]
    assert children(kubelets, everything) == []
