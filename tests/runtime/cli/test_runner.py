"""A run of real processes that stand in for the roles: who starts when, and how all of them end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from distill_runtime.contract.report import Report, Scores

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
"""Longest wait for anything here on a busy machine."""


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "signalShards": 34,
        "signalShardsMissing": 34,
        "teacherEvaluationsMissing": 1,
        "trainingFinished": False,
        "totalSteps": 60,
        **changes,
    }


def prepare(**changes: Any) -> str:
    return f"say(0, facts={facts(**changes)!r})"


def report() -> str:
    scores = Scores(model="file:///m", digest="d", kl_to_teacher=0.5)
    return Report(
        namespace="default",
        name="job",
        teacher=scores,
        student_before=scores,
        student_after=scores,
        data_digest="d",
        training_digest="t",
        objective="forward KL",
        steps=60,
        exported_step=60,
        model="file:///store/trainings/t/model",
    ).model_dump_json(by_alias=True)


FINISH = "say(0)"
EVALUATE = f"""
(folder / "report.json").write_text({report()!r})
(folder / "report.html").write_text("<html></html>")
say(0)
"""
ALL_WELL = {"prepare": prepare(), "teacher-0": FINISH, "student-0": FINISH, "evaluate": EVALUATE}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@dataclass
class Run:
    """A folder in which jobs are run."""

    folder: Path
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(self, programs: dict[str, Any], spec: dict[str, Any] | None = None) -> "subprocess.Popen[str]":
        document = {
            "apiVersion": "distill-operator.io/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": "job"},
            "spec": {
                "teacher": {"model": "hf://a/b", "gpus": 0},
                "student": {"model": "hf://a/c", "gpusPerWorker": 0},
                "data": {"train": "file:///d.jsonl"},
                "storage": {"uri": "file:///s"},
                **(spec or {}),
            },
        }
        (self.folder / "programs.json").write_text(json.dumps(programs))
        (self.folder / "spec.json").write_text(json.dumps(document))
        command = [sys.executable, "-m", "tests.runtime.cli.fake_run", str(self.folder)]
        environ = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.append(process)
        return process

    def run(self, programs: dict[str, Any], spec: dict[str, Any] | None = None) -> tuple[int, str]:
        return ended(self.start(programs, spec))

    def path(self, container: str, name: str) -> Path:
        return self.folder / "run" / "state" / container / name

    def wait_for(self, container: str, name: str = "here") -> int:
        """Waits until a container says where it is; gives its process id."""
        path = self.path(container, name)
        wait_until(lambda: path.exists() and path.read_text() != "", f"{name} of {container}")
        return int(path.read_text())

    def log(self, container: str) -> str:
        return (self.folder / "run" / "logs" / f"{container}.log").read_text()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    output, _ = process.communicate(timeout=SECONDS)
    return process.returncode, output


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    for process in run.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_a_run_ends_with_table_model_and_report(run: Run) -> None:
    code, output = run.run(ALL_WELL)
    assert code == 0, output
    assert "student after" in output
    assert "file:///store/trainings/t/model" in output
    assert f"{run.folder}/run/report.html" in output
    assert (run.folder / "run" / "report.html").read_text() == "<html></html>"
    assert "Teacher: started; 0 of 34 signal shards were there already." in output


def test_a_second_run_is_the_next_attempt_and_starts_nothing_that_is_done(run: Run) -> None:
    assert run.run(ALL_WELL)[0] == 0
    done = prepare(signalShardsMissing=0, teacherEvaluationsMissing=0, trainingFinished=True)
    code, output = run.run({"prepare": done, "evaluate": EVALUATE})
    assert code == 0, output
    assert "Teacher: not started, all 34 signal shards were there already." in output
    assert "Student: not started, its training of 60 steps was finished already." in output
    assert json.loads((run.folder / "run" / "run.json").read_text())["attempt"] == 2
    assert run.log("prepare").splitlines() == ["prepare of attempt 1 begins", "prepare of attempt 2 begins"]


def test_both_halves_run_side_by_side_and_know_of_each_other(run: Run) -> None:
    meet = """
mine, other = ("teacher-0", "student-1") if role == "teacher" else ("student-1", "teacher-0")
(folder / "here").write_text(str(os.getpid()))
end = time.monotonic() + 60
while not (folder.parent / other / "here").exists():
    assert time.monotonic() < end
    time.sleep(0.02)
print({name: os.environ.get(name) for name in ("DISTILL_TEACHERS", "DISTILL_NODES", "OMP_NUM_THREADS")}, flush=True)
say(0)
"""
    programs = {**ALL_WELL, "teacher-0": meet, "student-0": FINISH, "student-1": meet}
    code, output = run.run(programs, {"student": {"model": "hf://a/c", "gpusPerWorker": 0, "workers": 2}})
    assert code == 0, output
    assert "{'DISTILL_TEACHERS': '1', 'DISTILL_NODES': '2', 'OMP_NUM_THREADS': '4'}" in run.log("student-1")


def test_offline_the_student_begins_when_the_teacher_has_ended(run: Run) -> None:
    student = """
assert json.loads((folder.parent / "teacher-0" / "outcome.json").read_text())["code"] == 0
assert os.environ["DISTILL_TEACHERS"] == "0"
say(0)
"""
    slow = "time.sleep(1); say(0)"
    programs = {**ALL_WELL, "teacher-0": slow, "student-0": student}
    code, output = run.run(programs, {"signal": {"mode": "offline"}})
    assert code == 0, output


def test_one_that_fails_ends_all_others_and_is_named_with_its_sentence(run: Run) -> None:
    fail = """
end = time.monotonic() + 60
while not (folder.parent / "student-0" / "here").exists():
    assert time.monotonic() < end
    time.sleep(0.02)
say(75, "StoreUnreachable")
sys.exit(75)
"""
    code, output = run.run({**ALL_WELL, "teacher-0": fail, "student-0": "sleep()"})
    assert code == 75
    assert "teacher-0 failed (StoreUnreachable): teacher-0 says StoreUnreachable." in output
    assert "The last lines" not in output
    assert "Run again to continue" in output
    assert not alive(int(run.path("student-0", "here").read_text()))
    assert json.loads(run.path("student-0", "outcome.json").read_text())["reason"] == "Checkpointed"
    assert not run.path("evaluate", "outcome.json").exists()


def test_a_training_that_another_folder_holds_is_told_with_the_way_out(run: Run) -> None:
    code, output = run.run({**ALL_WELL, "teacher-0": "sleep()", "student-0": "say(75, 'Fenced'); sys.exit(75)"})
    assert code == 75
    assert "give a higher number: --attempt N" in output


def test_a_crash_shows_the_last_lines_of_this_starts_log(run: Run) -> None:
    assert run.run({"prepare": "print('old line'); say(75, 'Crashed'); sys.exit(75)"})[0] == 75
    crash = "print('Traceback: [boom]'); say(75, 'Crashed'); sys.exit(75)"
    code, output = run.run({"prepare": crash})
    assert code == 75
    assert "  Traceback: [boom]" in output
    assert "old line" not in output


def test_a_container_without_a_word_is_told_by_how_it_ended(run: Run) -> None:
    code, output = run.run({"prepare": "print('last words', flush=True); os.kill(os.getpid(), signal.SIGKILL)"})
    assert code == 75
    assert "prepare failed (Killed): prepare was ended by SIGKILL without a word." in output
    assert "  last words" in output


def test_a_users_error_wins_over_what_it_made_others_do(run: Run) -> None:
    late = """
def refuse(*_):
    say(65, "BadRow"); os._exit(65)
signal.signal(signal.SIGTERM, refuse)
(folder / "here").write_text("1")
time.sleep(120)
"""
    fail = """
end = time.monotonic() + 60
while not (folder.parent / "teacher-0" / "here").exists():
    assert time.monotonic() < end
    time.sleep(0.02)
say(75, "PeerLost"); sys.exit(75)
"""
    code, output = run.run({**ALL_WELL, "teacher-0": late, "student-0": fail})
    assert code == 65
    assert "teacher-0 failed (BadRow)" in output
    assert "correct it and run again" in output


def test_a_student_without_signals_brings_the_teacher_back_in_the_next_attempt(run: Run) -> None:
    student = """
if attempt == 1:
    say(75, "SignalMissing", needs="signals"); sys.exit(75)
assert os.environ["DISTILL_TEACHERS"] == "1"
say(0)
"""
    there = prepare(signalShardsMissing=0, teacherEvaluationsMissing=0)
    code, output = run.run({**ALL_WELL, "prepare": there, "student-0": student})
    assert code == 0, output
    assert "starting again, with the teacher" in output
    assert run.log("teacher-0") == "teacher-0 of attempt 2 begins\n"


def test_a_run_does_not_begin_again_for_ever(run: Run) -> None:
    student = "say(75, 'SignalMissing', needs='signals'); sys.exit(75)"
    code, output = run.run({**ALL_WELL, "student-0": student})
    assert code == 75
    assert "student-0 failed (SignalMissing)" in output
    assert run.log("student-0").count("begins") == 3


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("supervised", [False, True])
def test_an_interrupt_ends_all_with_a_checkpoint(run: Run, number: signal.Signals, code: int, supervised: bool) -> None:
    process = run.start({**ALL_WELL, "teacher-0": "sleep()", "student-0": "sleep()", "supervised": supervised})
    pids = [run.wait_for("teacher-0"), run.wait_for("student-0")]
    process.send_signal(number)
    returned, output = ended(process)
    assert returned == code, output
    assert "Run again to continue" in output
    assert [pid for pid in pids if alive(pid)] == []
    for container in ("teacher-0", "student-0"):
        assert json.loads(run.path(container, "outcome.json").read_text())["reason"] == "Checkpointed"


def test_a_second_interrupt_kills_what_does_not_end(run: Run) -> None:
    stubborn = """
signal.signal(signal.SIGTERM, lambda *_: (folder / "asked").write_text("1"))
(folder / "here").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""
    programs = {**ALL_WELL, "student-0": stubborn, "grace": 3600, "supervised": True}
    process = run.start(programs)
    pid = run.wait_for("student-0")
    process.send_signal(signal.SIGINT)
    run.wait_for("student-0", "asked")
    time.sleep(1.2)  # Signals within a second count as one.
    process.send_signal(signal.SIGINT)
    code, output = ended(process)
    assert code == 130, output
    assert not alive(pid)


def test_the_grace_is_the_longest_that_anybody_gets(run: Run) -> None:
    stubborn = """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
(folder / "here").write_text(str(os.getpid()))
time.sleep(120)
"""
    process = run.start({**ALL_WELL, "student-0": stubborn, "grace": 0.5, "supervised": True})
    pid = run.wait_for("student-0")
    process.send_signal(signal.SIGTERM)
    code, output = ended(process)
    assert code == 143, output
    assert not alive(pid)
    assert json.loads(run.path("student-0", "outcome.json").read_text())["reason"] == "GraceExceeded"


def test_a_killed_run_leaves_nothing_behind_and_the_next_one_waits_for_it(run: Run) -> None:
    slow = """
def save(*_):
    time.sleep(2); say(143, "Checkpointed"); (folder.parent.parent / "saved").write_text("1"); os._exit(143)
signal.signal(signal.SIGTERM, save)
(folder / "here").write_text(str(os.getpid()))
while True:
    time.sleep(0.05)
"""
    process = run.start({**ALL_WELL, "student-0": slow, "supervised": True})
    pid = run.wait_for("student-0")
    process.kill()
    process.communicate(timeout=SECONDS)
    check = "assert (folder.parent.parent / 'saved').exists(); " + prepare()
    code, output = run.run({**ALL_WELL, "prepare": check})
    assert code == 0, output
    assert "Waiting for processes of an earlier run" in output
    assert not alive(pid)


def test_two_runs_of_one_folder_do_not_collide(run: Run) -> None:
    process = run.start({**ALL_WELL, "student-0": "sleep()"})
    run.wait_for("student-0")
    code, output = run.run(ALL_WELL)
    assert code == 75
    assert f"another run is going on in {run.folder}/run (process {process.pid})" in output
    process.send_signal(signal.SIGTERM)
    assert ended(process)[0] == 143


def test_progress_is_shown_while_it_is_made(run: Run) -> None:
    student = """
for done in (0, 60):
    progress = {"role": "student", "stage": "train", "done": done, "total": 60, "loss": 0.25}
    (folder / "new").write_text(json.dumps(progress))
    os.replace(folder / "new", folder / "progress.json")
    time.sleep(1)
say(0)
"""
    code, output = run.run({**ALL_WELL, "student-0": student})
    assert code == 0, output
    assert "student-0: train 0/60 steps · loss 0.25" in output
    assert "student-0: finished" in output
