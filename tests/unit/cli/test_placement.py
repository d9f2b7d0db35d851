"""Cores and GPUs are divided so that nobody takes another's."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_operator.cli.placement import DEVICES, THREADS, WAITING, Machine, check_gpus, shares, this_machine
from distill_operator.cli.refusal import Refusal
from distill_operator.render import prepare_container, student_containers, teacher_containers
from distill_runtime.contract.outcome import ExitCode
from distill_runtime.contract.run import Work
from distill_runtime.contract.sections import Data, Signal, Storage, Student, Teacher


def work(gpus: int, replicas: int, per_worker: int, workers: int, mode: str = "hybrid") -> Work:
    return Work(
        teacher=Teacher(model="hf://a/b", gpus=gpus, replicas=replicas),
        student=Student(model="hf://a/c", gpus_per_worker=per_worker, workers=workers),
        data=Data(train="file:///d.jsonl"),
        storage=Storage(uri="file:///s"),
        signal=Signal.model_validate({"mode": mode}),
    )


def both(of: Work):
    students = student_containers(of, teachers=of.teacher.replicas, master_address="h")
    return [*teacher_containers(of.teacher.replicas, evaluate=True), *students]


def test_processes_side_by_side_share_the_cores_and_do_not_spin_on_them() -> None:
    job = work(0, 1, 0, 2)
    own = shares(both(job), job, Machine(cores=8), {})
    shared = {THREADS: "8", WAITING: "PASSIVE"}
    assert [own[name] for name in ("teacher-0", "student-0", "student-1")] == [shared] * 3
    assert shares([prepare_container()], job, Machine(cores=8), {}) == {"prepare": {THREADS: "8"}}


def test_the_users_number_of_threads_stands() -> None:
    job = work(0, 1, 0, 1)
    assert shares(both(job), job, Machine(cores=8), {THREADS: "3"}) == {"teacher-0": {}, "student-0": {}}


def test_teachers_get_the_first_gpus_then_the_workers() -> None:
    job = work(2, 2, 3, 1)
    own = shares(both(job), job, Machine(cores=8, gpus=tuple("01234567")), {})
    assert {name: given[DEVICES] for name, given in own.items()} == {
        "teacher-0": "0,1",
        "teacher-1": "2,3",
        "student-0": "4,5,6",
    }
    assert all(THREADS not in given for given in own.values())


def test_who_runs_on_the_processor_sees_no_gpu_and_has_the_cores_alone() -> None:
    job = work(1, 1, 0, 1)
    own = shares(both(job), job, Machine(cores=8, gpus=("0", "1")), {})
    assert own == {"teacher-0": {DEVICES: "0"}, "student-0": {DEVICES: "", THREADS: "8"}}


@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3), st.integers(0, 20))
def test_a_job_that_is_not_refused_gets_all_its_gpus_and_each_one_once(
    gpus: int, replicas: int, per_worker: int, workers: int, there: int
) -> None:
    job = work(gpus, replicas, per_worker, workers)
    needed = gpus * replicas + per_worker * workers
    machine = Machine(cores=4, gpus=tuple(str(number) for number in range(there)))
    if needed > there:
        with pytest.raises(Refusal, match=f"needs {needed} GPUs"):
            check_gpus(job, machine)
        return
    check_gpus(job, machine)
    given_out = [
        name for own in shares(both(job), job, machine, {}).values() for name in own.get(DEVICES, "").split(",")
    ]
    used = [name for name in given_out if name]
    assert len(used) == len(set(used)) == needed


def test_too_few_gpus_are_told_with_a_way_out() -> None:
    with pytest.raises(Refusal, match=r"needs 2 GPUs \(teacher 1, student 1.*has 0: spec\.teacher\.gpus: 0") as caught:
        check_gpus(work(1, 1, 1, 1), Machine(cores=2))
    assert caught.value.code is ExitCode.USER_ERROR
    with pytest.raises(Refusal, match=r"has 1: spec\.signal\.mode: offline"):
        check_gpus(work(1, 1, 1, 1), Machine(cores=2, gpus=("0",)))
    check_gpus(work(1, 1, 1, 1, "offline"), Machine(cores=2, gpus=("0",)))


def test_gpus_are_those_of_cuda_visible_devices() -> None:
    assert this_machine({DEVICES: "3, 5"}).gpus == ("3", "5")
    assert this_machine({DEVICES: ""}).gpus == ()


def test_gpus_are_counted_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: H100 (UUID: GPU-1)'\necho '  MIG 1g'\necho 'GPU 1: H100 (UUID: GPU-2)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert this_machine({}).gpus == ("0", "1")
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert this_machine({}).gpus == ()
