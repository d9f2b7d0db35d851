"""Names that more than one part of the operator relies on: labels, annotations, ports, the field manager."""

GROUP = "distill-operator.io"
"""API group of the resource."""
VERSION = "v1alpha1"
"""Version of the resource."""
PLURAL = "distilljobs"
"""The resource in URLs."""
FIELD_MANAGER = "distill-operator"
"""Owner of the fields that this operator applies."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
"""On every child, with `MANAGED_BY`; children are watched by it."""
MANAGED_BY = "distill-operator"
"""Value of the label of all children."""
JOB_LABEL = f"{GROUP}/job"
"""On every child and pod: name of the DistillJob."""
JOB_UID_LABEL = f"{GROUP}/job-uid"
"""On every child and pod: the DistillJob's uid, which tells its pods from those of an earlier job of its name."""
ROLE_LABEL = f"{GROUP}/role"
"""On pods and on what makes them: `prepare`, `teacher`, `student`, `evaluate`."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""On pods: number of the attempt that they belong to."""
DIGEST_ANNOTATION = f"{GROUP}/digest"
"""On children: digest of the manifest that was applied last."""

PROGRESS_PORT = 8090
"""Port of every runtime pod: `/progress` (JSON), `/metrics` (Prometheus), `/startup`, `/healthz`."""
PROGRESS_PORT_NAME = "progress"
"""Its name."""
MASTER_PORT = 29400
"""Port of the students' rendezvous in a pod, where no other process can hold it."""
METRICS_PORT = 8080
"""Port of the operator's own metrics."""
PROBE_PORT = 8081
"""Port of the operator's liveness and readiness."""

RUN_CONFIG_KEY = "run.json"
"""Key in the attempt's ConfigMap: the run configuration that the containers read."""
CHILDREN_KEY = "children.json"
"""Key in the attempt's ConfigMap: the manifests of the attempt's other children, rendered once."""

DEFAULT_STARTUP_SECONDS = 3600
"""Longest start of a container where neither job nor configuration says so."""
