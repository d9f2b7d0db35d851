"""Random walks of a cluster: pods that appear, speak, die and are taken away, workloads that settle late, news that is
old, writes that fail, users who change their minds. Whatever happens, the promises hold; and a walk that becomes fair
comes to an end."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from distill_operator.api.status import DistillJobStatus
from distill_operator.configuration import OperatorConfiguration
from distill_operator.lifecycle.decide import decide
from distill_operator.lifecycle.decision import Decision
from distill_operator.lifecycle.observed import Observed
from distill_operator.lifecycle.wanted import wanted
from distill_runtime.contract.outcome import Progress
from tests.unit.lifecycle.played_cluster import PlayedCluster, Snapshot, runs
from tests.unit.lifecycle.words import (
    OUT_OF_MEMORY,
    checkpointed,
    crashed,
    evaluated,
    prepared,
    refused,
    retry,
    taught,
    trained,
)

MOST_SNAPSHOTS = 8
FAIR_ROUNDS = 60
FAULTS = ("refused", "retry", "crashed", "outOfMemory", "silent", "needs", "loses its end")


class Walk(RuleBasedStateMachine):
    """One walk. `self.cluster` is the truth; passes may see an older one."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = PlayedCluster()
        self.snapshots: list[Snapshot] = []
        self.faults = False
        """Something happened that may rightly fail the job."""
        self.benign = True
        """Nothing of that kind is to happen in this walk."""

    @initialize(
        mode=st.sampled_from(["hybrid", "offline", "streaming"]),
        workers=st.integers(1, 3),
        replicas=st.integers(1, 3),
        limit=st.integers(0, 3),
        progress_seconds=st.sampled_from([0.5, 15]),
        benign=st.booleans(),
    )
    def begin(self, mode: str, workers: int, replicas: int, limit: int, progress_seconds: float, benign: bool) -> None:
        self.benign = benign
        spec = {
            "signal": {"mode": mode},
            "student": {"workers": workers},
            "teacher": {"replicas": replicas},
            "policy": {"backoffLimit": limit, "startupDeadlineSeconds": 7200, "stallTimeoutSeconds": 7200},
        }
        self.cluster = PlayedCluster(
            spec,
            OperatorConfiguration(progress_seconds=progress_seconds),
            kubelets={role: lambda pod: pod for role in ("prepare", "teacher", "student", "evaluate")},
        )

    # The operator.

    @rule()
    def passes(self) -> None:
        self.checked(None)

    @rule(age=st.integers(1, MOST_SNAPSHOTS))
    def passes_with_old_news(self, age: int) -> None:
        if self.snapshots:
            self.checked(self.snapshots[-min(age, len(self.snapshots))])

    @rule()
    def passes_and_cannot_write(self) -> None:
        decide(self.cluster.job, self.cluster.observe(), self.cluster.now, self.cluster.configuration)

    @rule()
    def starts_again(self) -> None:
        """What was removed meanwhile is never heard."""
        if self.benign and any(pod.outcome is not None for pod in self.cluster.unheard):
            return
        self.faults = self.faults or any(pod.outcome is not None for pod in self.cluster.unheard)
        self.cluster.unheard = []
        self.cluster.dirty = True

    def checked(self, seen: Snapshot | None) -> None:
        cluster, before = self.cluster, self.cluster.status or DistillJobStatus()
        job, observed, now = cluster.job, cluster.observe(seen), cluster.now
        living = [pod for pod in cluster.pods.values() if pod.phase not in ("Succeeded", "Failed")]
        decision = cluster.reconcile(seen)
        after = decision.status
        assert decision.children == wanted(before, job.spec)
        holds_outcomes(before, after)
        if seen is None and number(after) > number(before) > 0:
            assert not [pod for pod in living if pod.attempt == number(before)], "pods of two attempts"
        if after.attempts.failed > max(before.attempts.failed, job.spec.policy.backoff_limit):
            assert after.phase == "Failed", "one failure too many"
        if after.ended:
            assert wanted(after, job.spec) == replace(wanted(after, job.spec), running=False, teachers=None)
        self.rests(decision, observed, now)

    def rests(self, decision: Decision, observed: Observed, now: Any) -> None:
        """The same news again come to the same, until a rule asked to be asked again."""
        job, configuration = self.cluster.job, self.cluster.configuration
        for _ in range(4):
            again = decide(job.model_copy(update={"status": decision.status}), observed, now, configuration)
            if again.status == decision.status:
                break
            assert again.status.attempt != decision.status.attempt or again.status.phase != decision.status.phase
            decision = again
        else:
            raise AssertionError("the same news go on changing the status")
        assert not again.events
        quiet = timedelta(days=30) if again.again_after is None else timedelta(seconds=again.again_after - 1)
        if quiet > timedelta(0):
            later = decide(job.model_copy(update={"status": again.status}), observed, now + quiet, configuration)
            assert later.status == again.status, "a job at rest writes"

    @rule()
    def everybody_does_his_part(self) -> None:
        self.checked(None)
        self.cluster.control()
        self.cluster.remove_deleted()
        for uid, pod in list(self.cluster.pods.items()):
            if pod.phase == "Pending":
                self.cluster.change(uid, node="node-1", phase="Running", ready=True)

    @rule()
    def all_work_is_done(self) -> None:
        self.everybody_does_his_part()
        for pod in list(self.cluster.pods.values()):
            if pod.phase == "Running" and pod.exit_code is None and pod.deleting_since is None:
                self.cluster.end(pod.name.removeprefix("job-"), **words(pod.role, "good"))

    # Controllers, kubelets, time.

    @rule()
    def controllers_look(self) -> None:
        self.snapshots = [*self.snapshots, self.cluster.snapshot()][-MOST_SNAPSHOTS:]
        self.cluster.control()

    @rule()
    def kubelets_remove(self) -> None:
        self.snapshots = [*self.snapshots, self.cluster.snapshot()][-MOST_SNAPSHOTS:]
        self.cluster.remove_deleted()

    @rule(pick=st.integers(0, 20))
    def a_pod_runs(self, pick: int) -> None:
        waiting = [uid for uid, pod in self.cluster.pods.items() if pod.phase == "Pending"]
        if waiting:
            pod = runs(self.cluster.pods[waiting[pick % len(waiting)]])
            self.cluster.change(pod.uid, node=pod.node, phase=pod.phase, ready=pod.ready)

    @rule(pick=st.integers(0, 20), word=st.sampled_from(["good", "good", "good", "sigterm", *FAULTS]))
    def a_pod_ends(self, pick: int, word: str) -> None:
        cluster = self.cluster
        running = [pod for pod in cluster.pods.values() if pod.phase == "Running" and pod.exit_code is None]
        if not running:
            return
        pod = running[pick % len(running)]
        if self.benign and (word in FAULTS or pod.role != "student"):
            word = "good"
        self.faults = self.faults or word in FAULTS or (word == "sigterm" and pod.role != "student")
        cluster.end(pod.name.removeprefix("job-"), **words(pod.role, word))

    @rule(pick=st.integers(0, 20), how=st.sampled_from(["evicted", "deleted", "unseen"]))
    def a_pod_is_taken_away(self, pick: int, how: str) -> None:
        cluster = self.cluster
        if not cluster.pods:
            return
        pod = list(cluster.pods.values())[pick % len(cluster.pods)]
        if self.benign and (pod.outcome is not None or pod.role in ("prepare", "evaluate")):
            return
        self.faults = self.faults or pod.outcome is not None or pod.role in ("prepare", "evaluate")
        if how == "evicted":
            cluster.change(pod.uid, disrupted="EvictionByEvictionAPI")
        cluster.delete(pod.uid)
        if how == "unseen":
            cluster.remove_deleted()
            cluster.unheard = []

    @rule(seconds=st.sampled_from([1, 10, 60, 400]))
    def time_goes_by(self, seconds: int) -> None:
        self.cluster.now += timedelta(seconds=seconds)

    @precondition(lambda self: not self.benign)
    @rule()
    def much_time_goes_by(self) -> None:
        self.faults = True
        self.cluster.now += timedelta(hours=3)

    @rule(pick=st.integers(0, 20), done=st.integers(0, 1000))
    def a_pod_tells_its_progress(self, pick: int, done: int) -> None:
        running = [pod for pod in self.cluster.pods.values() if pod.phase == "Running"]
        if running:
            pod = running[pick % len(running)]
            self.cluster.progress[pod.name] = Progress(role=pod.role, stage="train", done=done, total=1000)

    # The user.

    @precondition(lambda self: self.cluster.status is not None)
    @rule(suspend=st.booleans())
    def the_user_suspends_or_resumes(self, suspend: bool) -> None:
        self.cluster.edit(suspend=suspend)

    @rule(workers=st.integers(1, 3), replicas=st.integers(1, 3), limit=st.integers(1, 3))
    def the_user_edits(self, workers: int, replicas: int, limit: int) -> None:
        self.cluster.edit(student={"workers": workers}, teacher={"replicas": replicas}, policy={"backoffLimit": limit})

    # The end.

    def teardown(self) -> None:
        """From now on everybody does his part: then the job ends, and well if nothing spoke against it."""
        cluster = self.cluster
        if cluster.status is None and not cluster.dirty:
            return
        cluster.kubelets = {}
        if cluster.job.spec.suspend:
            cluster.edit(suspend=False)
        for _ in range(FAIR_ROUNDS):
            if cluster.status is not None and cluster.status.ended:
                break
            for uid, pod in list(cluster.pods.items()):
                if pod.phase == "Pending":
                    cluster.change(uid, node="node-1", phase="Running", ready=True)
            cluster.wait(400)
            for pod in list(cluster.pods.values()):
                if pod.phase == "Running" and pod.exit_code is None and pod.deleting_since is None:
                    cluster.end(pod.name.removeprefix("job-"), **words(pod.role, "good"))
        cluster.wait(400)
        assert cluster.status is not None
        assert cluster.status.ended, f"it never ends: {cluster.status}"
        assert cluster.status.phase == "Succeeded" or self.faults, cluster.status
        assert not cluster.names(), "an ended job has pods"
        assert not cluster.controlled
        assert cluster.reconcile().status == cluster.reconcile().status


def words(role: Any, word: str) -> dict[str, Any]:
    """What a container of this role ends with."""
    good = {"prepare": prepared(), "teacher": taught(), "student": trained(), "evaluate": evaluated()}
    match word:
        case "good":
            return good[role]
        case "refused":
            return refused(role)
        case "retry":
            return retry(role)
        case "crashed":
            return crashed(role)
        case "outOfMemory":
            return OUT_OF_MEMORY
        case "needs":
            return retry(role, "SignalsMissing", needs="signals")
        case "sigterm":
            return checkpointed(role)
        case _:
            return {"exit_code": 0 if word == "silent" else 1}


def number(status: DistillJobStatus) -> int:
    return status.attempt.number if status.attempt else 0


def holds_outcomes(before: DistillJobStatus, after: DistillJobStatus) -> None:
    """What is stored of ends never changes, and numbers never fall."""
    assert number(before) <= number(after) <= number(before) + 1
    for name in ("failed", "disrupted", "suspended"):
        assert getattr(after.attempts, name) >= getattr(before.attempts, name)
    assert before.prepared is None or after.prepared == before.prepared
    assert after.student.finished >= before.student.finished
    if before.ended:
        told = {"conditions", "observed_generation", "teacher", "student"}
        assert after.model_dump(exclude=told) == before.model_dump(exclude=told)
    if before.attempt and before.attempt.ending and number(after) == number(before):
        assert after.attempt is not None
        assert after.attempt.ending == before.attempt.ending


Walk.TestCase.settings = settings(
    max_examples=150, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestWalk = Walk.TestCase
