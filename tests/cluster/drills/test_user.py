"""The user changes his mind in the middle."""

import pytest

from tests.cluster.drills.drill import DrilledJob, Drills


def test_suspend(drills: Drills) -> None:
    """A suspended job holds nothing; a resumed one repeats nothing."""
    job = drills.job("suspend", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    job.edit(suspend=True)
    job.wait_for_phase("Suspended")
    job.wait("that it holds nothing", lambda: not job.pods())
    job.edit(suspend=False)
    drills.finish(job, suspended=1)
    assert job.steps_repeated() == 0


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_workers(drills: Drills, before: int, after: int) -> None:
    """Another number of workers goes on where the others stopped, with the same losses."""
    job = drills.job(f"workers-{before}-to-{after}", taught=True).start({"student": {"workers": before}})
    job.wait_for_step(12)
    job.strike()
    job.edit(student={"workers": after})
    job.wait_for_running("student", after, attempt=2)
    drills.finish(job, suspended=1)
    assert job.steps_repeated() == 0


def test_delete(drills: Drills) -> None:
    """Everything of a deleted job goes."""
    job = drills.job("delete", taught=True).start()
    job.wait_for_step(12)
    job.strike()
    job.delete()
    job.wait("that nothing is left", lambda: not job.uid and not job.everything(), 90)
    drills.rows.append(job.row(None, []))
    drills.platform.remove_namespace(job.namespace)


def test_delete_and_make_again(drills: Drills) -> None:
    """A job of the same name goes on from the other's checkpoint, once that one's pods are gone."""
    job = drills.job("make-again", taught=True).start()
    job.wait_for_step(12)
    first = job.uids()
    job.strike()
    job.delete()
    again = DrilledJob(drills.platform, drills.api, drills.world, drills.logs, job.namespace, job.name).start()
    again.fault = job.fault
    drills.finish(again)
    assert not first & again.uids()
    assert again.steps_repeated() <= 5 + 2
