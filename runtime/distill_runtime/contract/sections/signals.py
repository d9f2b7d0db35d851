"""What the teacher says, and how it travels."""

from typing import Literal, Self

from pydantic import Field, model_validator

from distill_runtime.contract.sections.section import Section


class Signal(Section):
    """What the teacher says about each target token."""

    kind: Literal["hidden", "topk", "sampled", "auto"] = "hidden"
    """What is stored of the training data. `hidden`: the teacher's last hidden state; exact over the whole vocabulary.
    `topk`: the `k` most likely ids with their log-probabilities, and that of all others together. `sampled`: `samples`
    ids drawn from the teacher's distribution; unbiased. `auto`: the most exact of them that moves fast enough, which
    prepare chooses once. Held-out data and tasks always have hidden states, so that scores are exact and comparable."""
    k: int = Field(default=64, ge=1, le=4096)
    """Ids of a target with kind `topk`."""
    samples: int = Field(default=64, ge=1, le=4096)
    """Draws of a target with kind `sampled`."""
    bandwidth: float | None = Field(default=None, gt=0)
    """For `auto`: bytes a second between a pod and the store. Unset: prepare measures it."""
    reuses: int = Field(default=0, ge=0, le=10000)
    """For `auto`: other jobs that are expected to read the same signals."""
    mode: Literal["hybrid", "streaming", "offline"] = "hybrid"
    """`hybrid`: teacher and student at once, signals kept. `streaming`: at once, signals dropped behind the last
    checkpoint. `offline`: first the teacher, then the student."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Precision in which hidden states (`auto`: bfloat16) and log-probabilities (kind `topk`; `auto`: float16) are
    stored. Kind `sampled` stores its draws exactly with any. Held-out hidden states are in float32 with `float32`, else
    in bfloat16."""
    shard_sequences: int = Field(default=64, ge=1, le=65536)
    """Sequences in one object of the store."""
    watermark_bytes: int = Field(default=64 * 2**30, ge=1)
    """In streaming mode teachers pause when they are this many bytes ahead of the student."""
    lease_seconds: float = Field(default=120, ge=1, le=86400)
    """A shard that a teacher took and didn't finish is taken by another one after this time."""

    @model_validator(mode="after")
    def _precision_of_its_kind(self) -> Self:
        kinds = {"bfloat16": ("hidden",), "float16": ("topk", "sampled")}
        if self.kind not in kinds.get(self.dtype, (self.kind,)):
            raise ValueError("dtype bfloat16 is for kind hidden, float16 for topk and sampled: leave it out")
        return self


class Transport(Section):
    """How signals travel from teacher to student."""

    kind: Literal["objectstore"] = "objectstore"
    """`objectstore`: as objects in `storage`."""
