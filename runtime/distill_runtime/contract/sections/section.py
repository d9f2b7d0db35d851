"""What every section is: one class, and types of several."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic.alias_generators import to_camel

Uri = Annotated[
    str,
    StringConstraints(pattern=r"^(file|s3|hf|pvc)://[^\s]+$", max_length=1024),
]
"""`hf://organisation/name[@revision][/path]` (data sets: `hf://datasets/organisation/name…`), `s3://bucket/path`,
`pvc://claim/path` or `file://path`."""

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class Section(BaseModel):
    """A part of the spec: camelCase on the wire, unknown fields refused, never changed once read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
