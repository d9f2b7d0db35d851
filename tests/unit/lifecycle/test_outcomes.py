"""What a pod's end means, alone and among others."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from distill_operator.lifecycle.observed import Pod
from distill_operator.lifecycle.outcomes import verdict, verdicts
from distill_runtime.contract.outcome import GRACE_EXCEEDED, ExitCode
from tests.unit.lifecycle.played_cluster import START
from tests.unit.lifecycle.words import OUT_OF_MEMORY, checkpointed, crashed, refused, retry, said, trained

POD = Pod("job-student-1", "uid-1", "student", 1, START, phase="Running", ordinal=1, node="node-1")
DELETED: dict[str, Any] = {"deleting_since": START + timedelta(seconds=30)}
EVICTED = {"disrupted": "EvictionByEvictionAPI"}

ENDS: dict[str, tuple[dict[str, Any], tuple[str, str] | None]] = {
    "works": ({}, None),
    "waits for a node": ({"phase": "Pending", "unschedulable": "0/3 nodes are available"}, None),
    "finished": (trained(), ("finished", "Finished")),
    "finished and deleted": (trained() | DELETED, ("finished", "Finished")),
    "the user's error": (refused("student"), ("userError", "BadRow")),
    "the user's error, evicted": (refused("student") | EVICTED, ("userError", "BadRow")),
    "65 without a word": ({"exit_code": 65}, ("userError", "NoOutcome")),
    "misses signals": (retry("student", "SignalsMissing", needs="signals"), ("needsSignals", "SignalsMissing")),
    "retry": (retry("student"), ("retry", "StoreUnreachable")),
    "retry while it is deleted": (retry("student") | DELETED, ("retry", "StoreUnreachable")),
    "traceback": (crashed("student"), ("crash", "Crashed")),
    "traceback of an evicted pod": (crashed("student") | EVICTED, ("disruption", "Disrupted")),
    "killed behind its grace": (
        retry("student", GRACE_EXCEEDED, "was killed") | DELETED,
        ("disruption", "Disrupted"),
    ),
    "crash without a word": ({"exit_code": 1}, ("crash", "Crashed")),
    "killed without a word, gone": ({"exit_code": 137, "gone": True}, ("disruption", "Disrupted")),
    "0 without a word": ({"exit_code": 0}, ("crash", "NoOutcome")),
    "out of memory": (OUT_OF_MEMORY, ("retry", "OutOfMemory")),
    "out of memory, with a last word": (OUT_OF_MEMORY | crashed("student"), ("retry", "OutOfMemory")),
    "checkpointed": (checkpointed("student"), ("disruption", "Disrupted")),
    "143 without a word": ({"exit_code": 143}, ("disruption", "Disrupted")),
    "evicted": (EVICTED, ("disruption", "Disrupted")),
    "deleted": (DELETED, ("disruption", "Disrupted")),
    "gone": ({"gone": True}, ("disruption", "Disrupted")),
    "evicted by the kubelet": (
        {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."},
        ("disruption", "Disrupted"),
    ),
    **{
        f"evicted for its own limit: {message[:24]}": (
            {"phase": "Failed", "reason": "Evicted", "message": message, "disrupted": "TerminationByKubelet"},
            ("retry", "OutOfDisk"),
        )
        for message in (
            'Usage of EmptyDir volume "distill-scratch" exceeds the limit "1Gi". ',
            'Container student exceeded its local ephemeral storage limit "1Gi". ',
            "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        )
    },
    "refused by the kubelet": (
        {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no GPU is left"},
        ("crash", "UnexpectedAdmissionError"),
    ),
    "failed, and nobody says how": ({"phase": "Failed"}, ("crash", "WorkerLost")),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_means_what_its_container_and_its_pod_say(name: str) -> None:
    changes, meant = ENDS[name]
    one = verdict(replace(POD, **changes))
    assert (one and (one.kind, one.reason)) == meant
    assert one is None or "job-student-1" in one.message


ORDER = [
    refused("student"),
    trained(),
    retry("student", "SignalsMissing", needs="signals"),
    retry("student"),
    checkpointed("student"),
    crashed("student"),
]
"""From the end that counts before all others to the one that counts last."""


@pytest.mark.parametrize("first", range(len(ORDER)))
@pytest.mark.parametrize("later", range(len(ORDER)))
def test_of_two_ends_the_one_that_says_more_counts(first: int, later: int) -> None:
    pods = [replace(POD, name="a", **ORDER[first]), replace(POD, name="b", **ORDER[later])]
    kinds = [verdict(pod) for pod in pods]
    expected = kinds[0] if first <= later else kinds[1]
    assert verdicts(pods)[0] == expected
    assert verdicts(reversed(pods))[0] == expected


def test_memory_that_ran_out_names_the_limit_to_raise() -> None:
    one = verdict(replace(POD, **OUT_OF_MEMORY))
    assert one is not None
    assert one.message == (
        "job-student-1 was killed because it ran out of memory; raise spec.pods.student.memory or lower "
        "spec.training.microBatch."
    )


def test_the_kubelets_own_words_are_kept() -> None:
    one = verdict(replace(POD, phase="Failed", reason="Evicted", message="The node was low on resource: memory."))
    assert one is not None
    assert one.message == "job-student-1: The node was low on resource: memory."


def test_a_disk_that_is_full_names_what_to_raise() -> None:
    message = 'Usage of EmptyDir volume "distill-cache" exceeds the limit "1Gi". '
    one = verdict(replace(POD, phase="Failed", reason="Evicted", message=message))
    assert one is not None
    assert one.message == (
        'job-student-1: Usage of EmptyDir volume "distill-cache" exceeds the limit "1Gi"; raise '
        "spec.pods.student.ephemeralStorage or the size of that volume."
    )


def test_a_word_of_a_wrong_code_is_never_a_good_end() -> None:
    one = verdict(replace(POD, **said("student", ExitCode.RETRY, "Finished")))
    assert one is not None
    assert one.kind == "retry"
