"""Pods on nodes that don't answer stay Terminating for ever: nobody is left to end them."""

from datetime import datetime

from distill_operator.lifecycle.case import Case, seconds


def pods_on_lost_nodes(case: Case) -> tuple[tuple[str, ...], datetime | None]:
    """Pods of any attempt to be removed without grace, and when the next one may be.

    Their checkpoints are fenced by attempt, so a process that still runs there can't write over newer ones.
    """
    deleting = [
        (pod.deleting_since + seconds(case.policy.node_lost_seconds), pod.uid)
        for pod in case.observed.pods
        if pod.deleting_since is not None and not pod.gone
    ]
    lost = tuple(uid for due, uid in deleting if due <= case.now)
    return lost, min((due for due, _ in deleting if due > case.now), default=None)
