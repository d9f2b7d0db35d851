"""The files of a run outlive it, and belong to one run at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from distill_operator.cli.folder import RunFolder
from distill_operator.cli.refusal import Refusal
from distill_runtime.contract.outcome import ExitCode


def nothing() -> None:
    pass


def test_attempts_count_up_and_the_identity_stays(tmp_path: Path) -> None:
    first = RunFolder(tmp_path).next_attempt(None)
    second = RunFolder(tmp_path).next_attempt(None)
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.uid == second.uid
    assert RunFolder(tmp_path / "other").next_attempt(None).uid != first.uid
    assert RunFolder(tmp_path).next_attempt("given").uid == "given"
    assert RunFolder(tmp_path).next_attempt(None, least=9).attempt == 9
    assert RunFolder(tmp_path).next_attempt(None, least=9).attempt == 10


def test_a_strange_run_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(Refusal, match=r"run\.json is not this tool's"):
        RunFolder(tmp_path).next_attempt(None)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refusal, match="file can't be used as the run's folder") as caught:
        RunFolder(tmp_path / "file")
    assert caught.value.code is ExitCode.USER_ERROR


def test_a_second_run_in_the_folder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with (
        folder.lock(60, nothing),
        pytest.raises(Refusal, match=f"another run is going on.*process {os.getpid()}"),
        RunFolder(tmp_path).lock(60, nothing),
    ):
        raise AssertionError("two runs hold the folder")
    with folder.lock(0, nothing):
        pass


def test_what_is_left_of_a_dead_run_is_waited_for(tmp_path: Path) -> None:
    # A run that dies and leaves a container behind, which ends once somebody waits for it.
    waiting = tmp_path / "waiting"
    program = (
        "import subprocess, sys, pathlib\n"
        "from distill_operator.cli.folder import RunFolder\n"
        "lock = RunFolder(pathlib.Path(sys.argv[1])).lock(0, lambda: None)\n"
        "descriptor = lock.__enter__()\n"
        "container = f'until [ -e {sys.argv[2]} ]; do sleep 0.1; done'\n"
        "subprocess.Popen(['timeout', '60', 'sh', '-c', container], pass_fds=[descriptor], stdout=subprocess.DEVNULL)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path), str(waiting)], check=True, timeout=60)
    waited: list[str] = []

    def told() -> None:
        waited.append("told")
        waiting.touch()

    with RunFolder(tmp_path).lock(30, told):
        pass
    assert waited == ["told"]


def test_state_of_an_earlier_start_is_gone_and_reports_are_kept(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    state = folder.fresh_state("evaluate")
    (state / "report.json").write_text("{}")
    assert folder.keep_reports("evaluate") == [tmp_path / "report.json"]
    assert list(folder.fresh_state("evaluate").iterdir()) == []
    assert (tmp_path / "report.json").read_text() == "{}"
