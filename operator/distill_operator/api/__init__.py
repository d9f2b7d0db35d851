"""The DistillJob as types: what a user writes, read with every mistake told by its field path.

- `job`: the resource, made of the sections of `distill_runtime.contract`, so that a field is written once, and of what
  only a cluster reads: `pods` (with `volumes`, `affinity`, and the texts in `names` and `quantities`), `policy`.
  `status`: what the operator reports.
- `load`: YAML to `DistillJob`, or one exception with all that is wrong.
- `document`: YAML to plain data. `fields`: how pydantic's error locations and the schema lead to a field.
  `sentences`: an error in words.
- `local`: what a manifest means on this machine (relative `file://` paths, no volumes).
- `crd`: the types as a CustomResourceDefinition. `structural`: a type as a schema that the API server takes. `rules`:
  what a schema can't say. `reference`: the types as a page. These write the files in `crds`, the chart and `docs`.

Invariants
- What the API server takes, `load` takes, and the other way round, wherever a schema can say it; a validator that looks
  at two fields has a rule with the same sentence in `rules`.
- A status is always read, whoever wrote it.

Nothing here talks to an API server.
"""

from distill_operator.api.job import API_VERSION, KIND, DistillJob, JobSpec, Metadata
from distill_operator.api.load import InvalidJob, load_job
from distill_operator.api.local import resolve_local_paths

__all__ = [
    "API_VERSION",
    "KIND",
    "DistillJob",
    "InvalidJob",
    "JobSpec",
    "Metadata",
    "load_job",
    "resolve_local_paths",
]
