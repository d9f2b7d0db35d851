"""The student's StatefulSet: workers with fixed names that train together and live and die together.

`volumeClaimTemplates` can't be changed in place. They hold the cache of `pods.student.modelCache.perPod` and depend on
that field alone; a StatefulSet that has another one must be removed and made again (between attempts, when it has no
pods). Claims outlive scaling down, so that the next attempt finds the models, and go with the StatefulSet.
"""

from distill_operator.constants import MASTER_PORT
from distill_operator.render.containers import student_environment
from distill_operator.render.manifest import Manifest, child_manifest, selector
from distill_operator.render.names import name_of
from distill_operator.render.pod import DO_NOT_DISRUPT, pod_template, serving_probes
from distill_operator.render.role import RoleInAttempt
from distill_operator.render.variables import from_field, values
from distill_operator.render.volumes import claim_templates
from distill_runtime.contract import environment

RENDEZVOUS_PORT_NAME = "rendezvous"
"""Name of `MASTER_PORT`."""
POD_INDEX = "metadata.labels['apps.kubernetes.io/pod-index']"
"""Number of a StatefulSet's pod, as a field."""


def student_set(role: RoleInAttempt) -> Manifest:
    """The StatefulSet. `replicas` and the number of teachers are filled in when it is applied.

    All pods start at once, since they wait for each other. Pods are never replaced by others of a newer template: an
    attempt ends as a whole. Ready means that the process is up.
    """
    job, templates = role.job, claim_templates(role)
    service = name_of("studentService", job.metadata.name, role.attempt).name
    first_worker = f"{name_of('student', job.metadata.name, role.attempt).name}-0.{service}"
    own = [
        *values(student_environment(job.spec.work(), teachers=0, master_address=first_worker)),
        *values({environment.RESTART_IN_PLACE: "refuse"}),
        from_field(environment.NODE_RANK, POD_INDEX),
    ]
    template = pod_template(
        role,
        restart="Always",
        own_variables=own,
        own_ports=[{"name": RENDEZVOUS_PORT_NAME, "containerPort": MASTER_PORT, "protocol": "TCP"}],
        probes=serving_probes(role, ready="/healthz"),
        annotations=DO_NOT_DISRUPT,
    )
    return {
        **child_manifest("student", job, role.attempt, role="student"),
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": selector(job, "student")},
            "serviceName": service,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"},
            "revisionHistoryLimit": 1,
            "template": template,
            **({"volumeClaimTemplates": templates} if templates else {}),
        },
    }
