"""The stages of dvc.yaml on a toy project with real DVC: order, processes, what is said of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.toy import ended

from flows.progress import bar_of
from flows.stages import (
    CHILD,
    StageError,
    environment,
    lines,
    stages_in_order,
    started,
    why_killed,
)

PYTHON = sys.executable


@pytest.mark.slow
def test_order_is_that_of_dvc(toy: Path) -> None:
    needs = stages_in_order()
    each = ["each@0", "each@1", "each@2"]
    assert list(needs) == ["zero", *each, "above", "last"]
    assert needs["zero"] == [] and needs["each@1"] == ["zero"] and sorted(needs["above"]) == each


@pytest.mark.slow
def test_unreadable_stages_are_an_error_in_words(toy: Path) -> None:
    (toy / "dvc.yaml").write_text("stages: {one: {comand: echo}}", encoding="utf-8")
    with pytest.raises(StageError, match=r"cannot read the stages(.|\n)*comand"):
        stages_in_order()


def test_an_interrupted_stage_leaves_nothing_running(tmp_path: Path) -> None:
    note = tmp_path / "child"
    command = ["sh", "-c", f"sleep 60 & echo $! > {note}; echo ready; wait"]
    with contextlib.suppress(KeyboardInterrupt), started(command, tmp_path) as process:
        assert process.stdout is not None and next(lines(process.stdout)) == "ready"
        raise KeyboardInterrupt
    assert process.poll() is not None
    assert ended(int(note.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_a_stage_ends_with_the_run_that_started_it(toy: Path) -> None:
    """However that ended: its end of the pipe is closed."""
    (toy / "script").write_text("echo $$ > pid; exec sleep 60", encoding="utf-8")
    command = [PYTHON, str(CHILD), "repro", "above"]
    child = subprocess.Popen(command, cwd=toy, stdin=subprocess.PIPE, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not (toy / "pid").exists() or not (toy / "pid").read_text(encoding="utf-8").strip():
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        stage = int((toy / "pid").read_text(encoding="utf-8"))
        assert not Path(f"/proc/{stage}/stat").read_text(encoding="utf-8").rpartition(")")[2].startswith(" Z")
        assert child.stdin is not None
        child.stdin.close()
        assert child.wait(10) != 0 and ended(stage)
    finally:
        child.kill()


def test_stages_find_this_python() -> None:
    found = subprocess.run(
        ["sh", "-c", "command -v python"], env=environment(), capture_output=True, text=True
    )
    assert Path(found.stdout.strip()).parent == Path(sys.executable).parent


def test_a_killed_stage_is_told_as_such() -> None:
    dvc_says = "ERROR: failed to reproduce 'adapt': failed to run: python -m tasks.adapt, exited with "
    for code, last in [(255, f"{dvc_says}-9"), (255, f"{dvc_says}137"), (-9, ""), (137, "")]:
        assert "killed, most likely for memory: lower model.memory_gb" in why_killed(code, ["a line", last])
    for code, last in [(255, f"{dvc_says}1"), (255, f"{dvc_says}-91"), (-15, ""), (0, "")]:
        assert why_killed(code, [last]) == ""


def test_bars_are_read() -> None:
    train = "adapt@1 train:  42%|████▏     | 1.20k/2.86k [00:35<00:48, 34.2tok/s]"
    assert bar_of(train) == (0.42, "adapt@1 train 1.20k/2.86k")
    assert bar_of(" 50%|#####     | 1/2 [00:01<00:01,  1.00s/it]") == (0.5, "1/2")
    for line in ("", "a line of 50% of something", "| 1/2 [a table]"):
        assert bar_of(line) is None
