"""The report of a job: what the user gets beside the model. `report.json` is this document."""

from typing import Literal

from pydantic import Field

from distill_runtime.contract.sections import LabelNormalisation, Section

Subject = Literal["teacher", "studentBefore", "studentAfter"]
"""Whose scores: the teacher's, the student's before training, the student's after it."""


class TaskScores(Section):
    """Scores of one model on one task."""

    kind: Literal["classification", "questionAnswering"]
    examples: int = Field(ge=0)
    """Examples that were scored."""
    accuracy: float | None = None
    """Classification: part of the examples with the right label."""
    normalisation: LabelNormalisation = "none"
    """Classification: what the labels' log-probabilities were divided by."""
    macro_f1: float | None = None
    """Classification: unweighted mean of the labels' F1."""
    expected_calibration_error: float | None = None
    """Classification: of the chosen labels, by their probability among all labels; 15 bins of equal width."""
    exact_match: float | None = None
    """Question answering: part of the answers that equal a right one after SQuAD's normalisation."""
    token_f1: float | None = None
    """Question answering: mean F1 of the answers' words."""


class Scores(Section):
    """Scores of one model."""

    model: str
    """URI of the model."""
    digest: str
    """Digest of its files."""
    kl_to_teacher: float | None = None
    """Mean over the held-out targets of KL(teacher || this model), in nats. 0 for the teacher."""
    top1_agreement: float | None = None
    """Part of the held-out targets where this model's most likely token is the teacher's."""
    perplexity: float | None = None
    """exp of the mean cross entropy on the held-out targets."""
    expected_calibration_error: float | None = None
    """Of the most likely token at each held-out target, by its probability; 15 bins of equal width."""
    parameters: int | None = None
    """Number of weights."""
    tasks: dict[str, TaskScores] = Field(default={})
    """Scores of each task, by its name."""


class CurvePoint(Section):
    """One optimizer step, or one held-out evaluation (then the fields of the step are unset)."""

    step: int = Field(ge=0)
    """Steps done: the point after the first step has 1; the held-out point before training has 0."""
    loss: float | None = None
    """The objective, a mean over the targets of the global batch."""
    divergence: float | None = None
    """Its divergence part, unweighted, in nats per target."""
    cross_entropy: float | None = None
    """Its cross entropy part, unweighted, in nats per target."""
    learning_rate: float | None = None
    gradient_norm: float | None = None
    """Norm of the gradients before clipping."""
    targets: int | None = None
    """Targets of the global batch."""
    seconds: float | None = None
    """Wall time of the step."""
    waited_seconds: float | None = None
    """Part of it that went by waiting for the teacher."""
    held_out_loss: float | None = None
    """The objective on the held-out data."""
    held_out_divergence: float | None = None
    held_out_cross_entropy: float | None = None


class Sample(Section):
    """A prompt of the held-out data, and what each model says to it."""

    prompt: str
    """What the models read, special tokens included."""
    reference: str
    """How the data goes on."""
    teacher: str | None = None
    """None where the teacher isn't compared with."""
    student_before: str
    student_after: str


class SourceReport(Section):
    """One of `data.sources`: what it held, and what an epoch reads of it."""

    uri: str
    weight: float
    """How often an epoch reads its rows."""
    rows: int = Field(ge=0)
    """Rows read, bad ones included."""
    sequences: int = Field(ge=0)
    """Rows that became a sequence."""
    epoch_sequences: int = Field(ge=0)
    """Sequences of it in one epoch; one that is read twice counts twice."""
    tokens: int = Field(ge=0)
    """Tokens of its sequences."""
    targets: int = Field(ge=0)
    """Tokens to learn of its sequences."""
    dropped_rows: int = Field(ge=0)
    """Rows that were too long."""
    truncated_rows: int = Field(ge=0)
    """Rows that were cut."""
    bad_rows: int = Field(ge=0)
    """Rows that couldn't be used."""


class Report(Section):
    """What was done and what came of it."""

    namespace: str
    name: str
    teacher: Scores
    student_before: Scores
    student_after: Scores
    data_digest: str
    """Digest of the training sequences."""
    training_digest: str
    """Digest of all that determined the weights."""
    objective: str
    """The objective in words."""
    steps: int
    """Optimizer steps that were made."""
    exported_step: int
    """The step whose weights were exported."""
    data: dict[str, int | float | str] = Field(default={})
    """Counts of the data: rows, sequences, targets; dropped, truncated, bad."""
    sources: list[SourceReport] = Field(default=[])
    """The parts of the training data, where the job gives them weights."""
    signal: dict[str, int | float | str] = Field(default={})
    """Kind, bytes, shards, reused."""
    training: dict[str, int | float | str] = Field(default={})
    """Settings that a reader would ask for: batch, learning rate, precision, workers."""
    curves: list[CurvePoint] = Field(default=[])
    """All points, by step."""
    samples: list[Sample] = Field(default=[])
    """Greedy answers to the first held-out rows."""
    model: str = ""
    """Where the distilled model is."""
