"""The run configuration: one immutable document per attempt, read by every container of it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from distill_runtime.contract.sections import (
    DRAWN_DIVERGENCES,
    Data,
    Evaluation,
    Objective,
    Output,
    Section,
    Signal,
    Storage,
    Student,
    Teacher,
    Training,
    Transport,
)

CONTRACT_VERSION = 1
"""Raised when a container of an older image could misread the run configuration."""

SAMPLED_NEEDS = (
    f"signal.kind sampled needs objective.divergences of kind {' or '.join(DRAWN_DIVERGENCES)} alone: of others, draws "
    "give a biased gradient"
)

Role = Literal["prepare", "teacher", "student", "evaluate"]
"""What a container does: tokenise the data, run the teacher, train the student, score the results."""


class Work(Section):
    """What is to be done. The sections are the DistillJob's own."""

    teacher: Teacher
    """The model that is imitated."""
    student: Student
    """The model that is trained."""
    data: Data
    """What is learned from."""
    storage: Storage
    """Where everything is kept."""
    signal: Signal = Signal()
    """What the teacher says about each target token."""
    transport: Transport = Transport()
    """How signals travel."""
    objective: Objective = Objective()
    """What is minimised."""
    training: Training = Training()
    """How the student is trained."""
    evaluation: Evaluation = Evaluation()
    """What the report says."""
    output: Output = Output()
    """The distilled model."""

    @property
    def learns_from_teacher(self) -> bool:
        """Does training read the teacher's signals?"""
        return self.objective.distillation_weight > 0

    @property
    def compares_with_teacher(self) -> bool:
        """Does the report tell the teacher's scores?"""
        chosen = self.evaluation.compare_with_teacher
        return self.learns_from_teacher if chosen is None else chosen

    @property
    def trusts_student(self) -> bool:
        """May the student bring code along? One that is made of the teacher brings the teacher's."""
        of_teacher = self.student.initialise is not None and self.teacher.trust_remote_code
        return self.student.trust_remote_code or of_teacher

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.data.evaluation is None:
            if self.output.select == "best":
                raise ValueError("output.select is best, which needs data.evaluation")
            if self.training.stop_after_worse_evaluations:
                raise ValueError("training.stopAfterWorseEvaluations needs data.evaluation")
            if self.evaluation.samples.count:
                raise ValueError("evaluation.samples needs data.evaluation")
        if self.training.precision == "float16" and self.student.gpus_per_worker == 0:
            raise ValueError("training.precision float16 needs GPUs; use float32 or bfloat16 on processors")
        if self.training.precision in ("bfloat16", "float16") and self.training.zero_stage == 0:
            raise ValueError(f"training.precision {self.training.precision} needs training.zeroStage 1 or more")
        if self.signal.kind == "sampled" and any(
            term.kind not in DRAWN_DIVERGENCES for term in self.objective.divergences
        ):
            raise ValueError(SAMPLED_NEEDS)
        return self


class RunConfig(Section):
    """What one attempt of a job runs. Rendered once, by the operator or by `distillctl run`, and never changed."""

    contract_version: Literal[1] = CONTRACT_VERSION
    """Version of this document."""
    namespace: str
    """Namespace of the DistillJob."""
    name: str
    """Name of the DistillJob."""
    uid: str
    """Identity of the DistillJob: jobs that are made again under the same name differ in it."""
    attempt: int = Field(ge=1)
    """Number of this attempt. A newer attempt fences the older one's writes off."""
    work: Work
    """What is to be done."""
