"""Jobs with the same teacher and data share what the teacher says, whether they run at once or one after the other."""

import re
from collections import Counter

import pytest

from tests.cluster.jobs.team import ASKED, HELD_OUT_ROWS, SHARD_SEQUENCES, TRAIN_ROWS, Team, TeamJob
from tests.cluster.platform import BUCKET

STORE = "shared-work"
OBJECT = re.compile(rf"{STORE}/signals/[0-9a-f]+/([0-9a-f]{{64}})/(manifest|bad|error)-(\d+)\.json")


@pytest.fixture(scope="module")
def at_once(team: Team) -> list[TeamJob]:
    """Two finished jobs that began at the same time, with the same teacher, data and signal. Their students differ in
    the order in which they saw the data."""
    jobs = [team.job(f"job-{seed}").start(STORE, ASKED, {"training": {"seed": seed}}) for seed in (1, 2)]
    for job in jobs:
        job.wait_for_phase("Succeeded")
    return jobs


def signal_objects(team: Team) -> list[tuple[str, str, int]]:
    """Shard, kind and generation of all that was written about shards of signals."""
    pages = team.platform.store.client().get_paginator("list_objects_v2")
    keys = [
        entry["Key"] for page in pages.paginate(Bucket=BUCKET, Prefix=f"{STORE}/signals/") for entry in page["Contents"]
    ]
    return [(match[1], match[2], int(match[3])) for key in keys if (match := OBJECT.fullmatch(key))]


def test_jobs_at_once_share_the_teachers_work(team: Team, at_once: list[TeamJob]) -> None:
    words = [word for job in at_once for word in job.teachers_words()]
    assert len(words) == len(at_once), "each job had a teacher, which finished"
    shards = at_once[0].status["prepared"]["signalShards"]
    assert shards == (TRAIN_ROWS + HELD_OUT_ROWS) // SHARD_SEQUENCES
    assert sum(word.shards_written for word in words) == shards
    assert sum(word.sequences for word in words) == TRAIN_ROWS + HELD_OUT_ROWS, "no sequence was scored twice"
    assert sum(word.answers_made for word in words) == 1, "the teacher answered once"


def test_each_shard_is_in_the_store_once(team: Team, at_once: list[TeamJob]) -> None:
    written = signal_objects(team)
    assert {(kind, generation) for _, kind, generation in written} == {("manifest", 0)}
    assert set(Counter(shard for shard, _, _ in written).values()) == {1}
    assert len(written) == at_once[0].status["prepared"]["signalShards"]


def test_both_students_are_trained(at_once: list[TeamJob]) -> None:
    reports = [job.report() for job in at_once]
    assert len({report.training_digest for report in reports}) == 2
    for report in reports:
        before, after = report.student_before.kl_to_teacher, report.student_after.kl_to_teacher
        assert before is not None
        assert after is not None
        assert after < before


def test_a_later_job_with_another_student_starts_no_teacher(team: Team, at_once: list[TeamJob]) -> None:
    before = signal_objects(team)
    later = team.job("later").start(STORE, ASKED, {"student": {"initialise": {"fromTeacher": {"every": 3}}}})
    later.wait_for_phase("Succeeded")
    prepared = later.status["prepared"]
    assert prepared["signalShardsMissing"] == prepared["teacherEvaluationsMissing"] == 0
    assert {role(pod) for pod in later.pods_ever().values()} == {"prepare", "student", "evaluate"}
    assert signal_objects(team) == before
    assert later.report().student_after.parameters != at_once[0].report().student_after.parameters


def role(pod: dict[str, dict[str, dict[str, str]]]) -> str:
    """Of a pod."""
    return pod["metadata"]["labels"]["distill-operator.io/role"]
