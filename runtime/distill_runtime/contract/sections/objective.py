"""What is minimised."""

from typing import Literal, Self

from pydantic import Field, model_validator

from distill_runtime.contract.sections.section import Section

DivergenceKind = Literal[
    "forwardKL",
    "reverseKL",
    "jensenShannon",
    "skewedForwardKL",
    "skewedReverseKL",
    "adaptiveKL",
    "totalVariation",
    "teacherTop1",
]
DRAWN_DIVERGENCES: tuple[DivergenceKind, ...] = ("forwardKL",)
"""Those that are linear in the teacher's probabilities, but for its entropy: of them alone draws give an unbiased
gradient."""


class Divergence(Section):
    """How far the student is from the teacher, by one measure. p is the teacher's distribution, q the student's."""

    kind: DivergenceKind
    """`forwardKL`: KL(p || q). `reverseKL`: KL(q || p). `jensenShannon`: β·KL(p || m) + (1 − β)·KL(q || m) with
    m = β·p + (1 − β)·q. `skewedForwardKL`: KL(p || α·p + (1 − α)·q). `skewedReverseKL`: KL(q || (1 − α)·p + α·q).
    `adaptiveKL`: forward and reverse KL, weighted for each token by where the two differ. `totalVariation`: half the
    sum of |p − q|. `teacherTop1`: cross entropy on the teacher's most likely token."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """Its weight among the divergences."""
    beta: float = Field(default=0.5, gt=0, lt=1)
    """β of `jensenShannon`; the others don't read it. Near 0 the gradient is that of β times the forward KL, near 1 of
    1 − β times the reverse KL."""
    alpha: float = Field(default=0.1, ge=0, lt=1)
    """α of the skewed divergences; the others don't read it. 0: not skewed."""
    head_mass: float = Field(default=0.5, gt=0, lt=1)
    """For `adaptiveKL`: the most likely tokens with this much of the teacher's probability together are its head; the
    others don't read it."""


class Objective(Section):
    """What is minimised: a weighted sum of divergences from the teacher and the cross entropy on the data."""

    divergences: list[Divergence] = Field(default=[Divergence(kind="forwardKL")], min_length=1, max_length=8)
    """Divergences from the teacher, added up with their weights."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """T: divides the logits of both sides of the divergences."""
    temperature_factor: Literal["squared", "none"] = "squared"
    """What the divergences are multiplied by. `squared`: T², which keeps the size of their gradients comparable between
    temperatures. `none`: 1."""
    distillation_weight: float = Field(default=1.0, ge=0, le=1000)
    """Weight of the divergences. 0: plain supervised fine-tuning, for which no teacher is started."""
    cross_entropy_weight: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the cross entropy on the data."""
    chunk_tokens: int | None = Field(default=None, ge=1, le=65536)
    """Tokens whose logits are held at a time. Unset: chosen from the vocabulary."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.distillation_weight == 0 and self.cross_entropy_weight == 0:
            raise ValueError("distillationWeight and crossEntropyWeight are both 0: nothing would be learned")
        return self
