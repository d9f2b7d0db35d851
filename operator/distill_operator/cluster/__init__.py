"""All Kubernetes I/O of the operator, on plain data: no typed model of the client is ever imported.

- `client`: one connection. `errors`: what can go wrong. `resources`: the kinds that are touched. `objects`: reading
  plain objects.
- `informer` lists and watches children into the `store`; `last_words` keeps pods that are gone until they were heard.
  `index` knows the DistillJobs that Kopf tells of. They only say which job to look at: a key of the `queue`.
- `reconcile`: one pass over one job: read → `observe` → decide → write `status` → `events` → `children`.
  `children` compares what is wanted with what is there; `apply` is the only writer of children. `warnings` and
  `progress` ask for what objects don't say.
- `lease`: who acts. `installed`: whether the API server knows the resource as this operator does. `health`: what
  liveness means. `operation` puts all of it together.

Invariants
- A pass starts from a fresh read of its DistillJob. Nothing is decided on what another pass remembered.
- Writes carry what they rest on: a status the resourceVersion that was read, an apply or a delete the uid of the child.
- An object is changed or removed only if the job is its controller by uid. An object of a child's name that isn't the
  job's is reported, never adopted. Pods, whose controllers are workloads, carry the job's uid as a label.
- What is written is read back: an answer of the API server enters the store at once, and an older watch event doesn't
  replace it.
- An error of the API server ends a pass, never the process. Losing the Lease ends the process.
- A replica that isn't the leader watches no children and writes nothing but its own Lease.

Rights. The client asks for no others, and for no Secrets.

| group | resource | verbs |
| --- | --- | --- |
| distill-operator.io | distilljobs | get, list, watch, delete |
| distill-operator.io | distilljobs/status | update |
| (core) | pods | list, watch, delete |
| (core) | configmaps, services | get, list, watch, create, patch, delete |
| apps | deployments, statefulsets | get, list, watch, create, patch, delete |
| batch | jobs | get, list, watch, create, patch, delete |
| networking.k8s.io | networkpolicies | get, list, watch, create, patch, delete |
| policy | poddisruptionbudgets | get, list, watch, create, patch, delete |
| (core) | events | list, create |
| coordination.k8s.io | leases, in the operator's namespace | get, create, update |

Discovery and OpenAPI (`/apis`, `/openapi/v3`) are open to every authenticated user (`system:discovery`).
"""
