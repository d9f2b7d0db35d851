"""The DistillJob as types: what a user writes, read with every mistake told by its field path.

- `job`: the resource, made of the sections of `distill_runtime.contract`, so that a field is written once.
- `load`: YAML to `DistillJob`, or one exception with all that is wrong.
- `document`: YAML to plain data. `fields`: how pydantic's error locations and the schema lead to a field.
  `sentences`: an error in words.
- `local`: what a manifest means on this machine (relative `file://` paths, no volumes).

Nothing here knows Kubernetes' API server, and nothing here does I/O but for reading a manifest's text.
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
