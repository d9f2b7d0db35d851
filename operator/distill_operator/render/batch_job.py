"""The batch Jobs `prepare` and `evaluate`: one pod that runs to its end, tried again by the Job controller."""

from typing import Literal

from distill_operator.render.manifest import Manifest, child_manifest
from distill_operator.render.pod import pod_template
from distill_operator.render.role import RoleInAttempt
from distill_runtime.contract.outcome import ExitCode


def batch_job(child: Literal["prepare", "evaluate"], role: RoleInAttempt) -> Manifest:
    """The batch Job of a role. A user's error fails it at once; evictions and preemptions don't count.

    Its pods are kept until the operator has read their last word, so it has no time to live of its own.
    """
    user_error = {"containerName": role.role, "operator": "In", "values": [int(ExitCode.USER_ERROR)]}
    return {
        **child_manifest(child, role.job, role.attempt, role=role.role),
        "spec": {
            "backoffLimit": role.job.spec.policy.backoff_limit,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": user_error},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": pod_template(role, restart="Never"),
        },
    }
