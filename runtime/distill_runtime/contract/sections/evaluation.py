"""What is measured, and what comes out."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from distill_runtime.contract.sections.section import Section, Uri

LabelNormalisation = Literal["none", "tokens", "characters", "bytes"]


class ClassificationTask(Section):
    """Classification by label scoring: the label whose text is the most likely answer to the prompt wins."""

    kind: Literal["classification"]
    """Classification."""
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)
    """Name in the report."""
    data: Uri
    """JSON Lines, CSV or Parquet with one example a row."""
    prompt_column: str = Field(default="prompt", min_length=1, max_length=128)
    """Column with the question."""
    label_column: str = Field(default="label", min_length=1, max_length=128)
    """Column with the right label."""
    labels: list[Annotated[str, StringConstraints(min_length=1, max_length=512)]] | None = Field(
        default=None, min_length=2, max_length=1024
    )
    """All labels. Unset: those that occur in the data."""
    prompt_template: str = Field(default="{prompt}", max_length=8192)
    """Text around the question; `{prompt}` stands for it."""
    normalisation: LabelNormalisation = "none"
    """What a label's log-probability is divided by before labels are compared: `none` (lm-evaluation-harness's `acc`);
    its `tokens`, the end of the turn included; the `characters` (`acc_norm`) or UTF-8 `bytes` (`acc_bytes`) of its
    text."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many rows."""


class QuestionAnsweringTask(Section):
    """Question answering by greedy generation, judged by exact match and token F1 (SQuAD's normalisation)."""

    kind: Literal["questionAnswering"]
    """Question answering."""
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", max_length=63)
    """Name in the report."""
    data: Uri
    """JSON Lines, CSV or Parquet with one example a row."""
    prompt_column: str = Field(default="prompt", min_length=1, max_length=128)
    """Column with the question."""
    answer_column: str = Field(default="completion", min_length=1, max_length=128)
    """Column with the right answer, or a list of right answers."""
    prompt_template: str = Field(default="{prompt}", max_length=8192)
    """Text around the question; `{prompt}` stands for it."""
    max_new_tokens: int = Field(default=64, ge=1, le=8192)
    """Longest answer in tokens."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """What generates the answers."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many rows."""


Task = Annotated[ClassificationTask | QuestionAnsweringTask, Field(discriminator="kind")]


class Samples(Section):
    """Answers of teacher, student before and student after side by side in the report, generated greedily."""

    count: int = Field(default=0, ge=0, le=64)
    """How many of the held-out rows are answered: the first ones. 0: none."""
    max_new_tokens: int = Field(default=128, ge=1, le=8192)
    """Longest answer in tokens."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """What generates the answers."""


class HarnessTask(Section):
    """A task of lm-evaluation-harness."""

    task: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$", max_length=128)
    """Its name there, or in a definition of `include`; a group's name stands for all of its tasks."""
    num_fewshot: int | None = Field(default=None, ge=0, le=100)
    """Solved examples in each prompt. Unset: as many as the task says."""
    limit: int | None = Field(default=None, ge=1)
    """Use only the first so many documents; of each task where it is a group."""


class Harness(Section):
    """Tasks of lm-evaluation-harness, run on the student before and after training."""

    tasks: list[HarnessTask] = Field(default=[], max_length=16)
    """Tasks to run."""
    include: Annotated[str, StringConstraints(pattern=r"^(file|s3|pvc)://[^\s]+$", max_length=1024)] | None = None
    """A folder with task definitions of your own (YAML), and their data if you like: paths in a definition count from
    this folder. Take only definitions that you have read: their templates can run code."""
    chat_template: bool = False
    """Put prompts into the model's chat template."""
    batch_size: int = Field(default=8, ge=1, le=4096)
    """Prompts that the model reads at a time."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [task.task for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("tasks names a task twice")
        return self


class Evaluation(Section):
    """What the report says of teacher, student before and student after, beside KL, agreement and perplexity."""

    tasks: list[Task] = Field(default=[], max_length=32)
    """Tasks to score."""
    samples: Samples = Samples()
    """Answers to show."""
    compare_with_teacher: bool | None = None
    """Score the teacher too, and tell KL and agreement with it. Unset: where `objective.distillationWeight` is above 0.
    A job that neither learns from the teacher nor is compared with it starts none."""
    harness: Harness = Harness()
    """Public benchmarks, and your own tasks in their format."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [task.name for task in self.tasks]
        if len(set(names)) != len(names):
            raise ValueError("two tasks have the same name")
        return self


class Output(Section):
    """The distilled model."""

    select: Literal["last", "best"] = "last"
    """Which weights are exported: the last step's, or those with the lowest held-out loss."""
    uri: Annotated[str, StringConstraints(pattern=r"^(file|s3)://[^\s]+$", max_length=1024)] | None = None
    """Where the model is copied to when the job has succeeded. Unset: it stays under `storage.uri`."""
