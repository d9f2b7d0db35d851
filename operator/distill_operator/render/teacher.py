"""The teacher's Deployment: equal replicas that share the work through the store, and may come and go."""

from distill_operator.render.manifest import Manifest, child_manifest, selector
from distill_operator.render.pod import pod_template, serving_probes
from distill_operator.render.role import RoleInAttempt
from distill_operator.render.variables import from_field, values
from distill_runtime.contract import environment

LONGEST_DEADLINE = 2**31 - 1


def teacher_deployment(role: RoleInAttempt) -> Manifest:
    """The Deployment. `replicas` is filled in when it is applied.

    Every replica may score the teacher, since all pods of a Deployment are equal: one takes that work when no signal is
    missing. A replica is ready when its model is loaded and has passed its check.
    """
    policy = role.job.spec.policy
    longest_start = (role.pods.startup_seconds or 0) + policy.startup_deadline_seconds
    own = [
        *values({environment.EVALUATE_TEACHER: "yes", environment.RESTART_IN_PLACE: "refuse"}),
        from_field(environment.REPLICA, "metadata.name"),
    ]
    return {
        **child_manifest("teacher", role.job, role.attempt, role="teacher"),
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": selector(role.job, "teacher")},
            # A surge would wait for GPUs that the replica it replaces holds.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "progressDeadlineSeconds": min(longest_start, LONGEST_DEADLINE),
            # An attempt is never rolled back to.
            "revisionHistoryLimit": 0,
            "template": pod_template(
                role, restart="Always", own_variables=own, probes=serving_probes(role, ready="/startup")
            ),
        },
    }
