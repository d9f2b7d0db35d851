"""What is started for a job, and what each container is told."""

from distill_operator.render import (
    evaluate_container,
    prepare_container,
    run_config,
    student_containers,
    teacher_containers,
)
from distill_runtime.contract import environment
from distill_runtime.contract.run import RunConfig
from distill_runtime.contract.sections import Student
from tests.unit.api.manifest import SMALLEST, load

WORK = load(SMALLEST).spec.work()


def test_every_container_runs_the_supervisor_of_its_role() -> None:
    containers = [
        prepare_container(),
        *teacher_containers(2, evaluate=True),
        *student_containers(WORK, teachers=2, master_address="student-0"),
        evaluate_container(),
    ]
    assert [container.name for container in containers] == [
        "prepare",
        "teacher-0",
        "teacher-1",
        "student-0",
        "evaluate",
    ]
    for container in containers:
        assert container.command == ["python", "-m", "distill_runtime.supervisor", container.role]


def test_the_first_replica_alone_scores_the_teacher() -> None:
    first, second = teacher_containers(2, evaluate=True)
    assert first.environment == {environment.REPLICA: "teacher-0", environment.EVALUATE_TEACHER: "yes"}
    assert second.environment == {environment.REPLICA: "teacher-1"}
    assert environment.EVALUATE_TEACHER not in teacher_containers(1, evaluate=False)[0].environment


def test_student_workers_know_their_place() -> None:
    student = Student(model="hf://a/b", workers=2, gpus_per_worker=4)
    work = WORK.model_copy(update={"student": student})
    first, second = student_containers(work, teachers=3, master_address="10.0.0.1", master_port=1234)
    assert second.environment == {
        environment.TEACHERS: "3",
        environment.NODES: "2",
        environment.NODE_RANK: "1",
        environment.PROCESSES: "4",
        environment.MASTER_ADDRESS: "10.0.0.1",
        environment.MASTER_PORT: "1234",
    }
    assert first.environment == {**second.environment, environment.NODE_RANK: "0"}


def test_a_worker_without_gpus_has_one_process() -> None:
    work = WORK.model_copy(update={"student": Student(model="hf://a/b", gpus_per_worker=0)})
    assert student_containers(work, teachers=0, master_address="h")[0].environment[environment.PROCESSES] == "1"


def test_the_run_configuration_names_the_job_and_the_attempt() -> None:
    config = run_config(load(SMALLEST), uid="u-1", attempt=3)
    assert (config.namespace, config.name, config.uid, config.attempt) == ("default", "job", "u-1", 3)
    assert RunConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config
