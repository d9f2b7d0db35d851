"""What is read, and where everything is kept."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from distill_runtime.contract.sections.section import Section, Uri


class Columns(Section):
    """Names of the columns (or JSON fields) to read, where they differ from the usual ones."""

    messages: str = Field(default="messages", min_length=1, max_length=128)
    """A list of chat messages, each with `role` and `content`."""
    prompt: str = Field(default="prompt", min_length=1, max_length=128)
    """The user's text."""
    completion: str = Field(default="completion", min_length=1, max_length=128)
    """The answer to learn."""
    text: str = Field(default="text", min_length=1, max_length=128)
    """Plain text, learned as a whole."""
    tools: str = Field(default="tools", min_length=1, max_length=128)
    """Functions that a chat may call: a list of JSON schemas, or such a list as JSON text. The chat template gets them;
    a row whose tools or calls it leaves out can't be used."""
    teacher_context: str = Field(default="teacher_context", min_length=1, max_length=128)
    """Text that only the teacher sees, in its system turn. Rows without it, or with an empty one, are the same for
    both."""


class DataSource(Section):
    """Training data with a share of its own in an epoch."""

    uri: Uri
    """JSON Lines, CSV or Parquet files; `*`, `?` and `**` match many."""
    weight: float = Field(default=1.0, gt=0, le=1000)
    """How often an epoch reads its rows: 2 reads each twice, 0.5 reads half of them, others in the next epoch."""


class Data(Section):
    """What the student learns from, and what it is judged on. Exactly one of `train` and `sources`."""

    train: Uri | Annotated[list[Uri], Field(min_length=1, max_length=256)] | None = None
    """Training data: JSON Lines, CSV or Parquet files; `*`, `?` and `**` match many."""
    sources: list[DataSource] | None = Field(default=None, min_length=1, max_length=64)
    """Training data in parts that are read more or less often than each other."""
    evaluation: Uri | Annotated[list[Uri], Field(min_length=1, max_length=256)] | None = None
    """Held-out data for the curves and the report: never trained on."""
    columns: Columns = Columns()
    """Names of the columns to read."""
    max_length: int = Field(default=2048, ge=2, le=1_048_576)
    """Longest sequence in tokens."""
    too_long: Literal["drop", "truncate"] = "drop"
    """What happens to longer sequences. `truncate` cuts the end off. Both are counted in the report."""
    max_bad_rows: int = Field(default=0, ge=0)
    """Rows that can't be used (broken, empty, without a target) before the job fails. Each one is named in the log."""
    chat_template: str | None = Field(default=None, max_length=65536)
    """A chat template (Jinja) instead of the tokenizer's own."""
    prompt_format: Literal["auto", "chat", "plain"] = "auto"
    """How `prompt` and `completion` become one text: as a chat of two turns, or joined as they are with the end-of-text
    token behind. `auto`: chat where there is a chat template, else plain."""
    targets: Literal["allAssistantTurns", "lastAssistantTurn"] = "allAssistantTurns"
    """Which turns of a chat are learned: all of the assistant's, or the last one alone."""
    system_prompt: str | None = Field(default=None, min_length=1, max_length=16384)
    """A system turn for chats that have none; a chat's own stays as it is. Tasks are asked with it too. Rows of plain
    text can't be used with it."""
    teacher_prompt: str | None = Field(default=None, min_length=1, max_length=16384)
    """What only the teacher is told, in its system turn behind what is there. The student learns to answer so without
    it. Tasks are asked without it."""
    teacher_max_length: int | None = Field(default=None, ge=2, le=1_048_576)
    """Longest sequence in tokens as the teacher reads it, with what only it sees. Unset: `maxLength`."""

    @model_validator(mode="after")
    def _one_training_set(self) -> Self:
        if (self.train is None) == (self.sources is None):
            raise ValueError("give exactly one of train and sources")
        return self


class Storage(Section):
    """Where plans, signals, checkpoints and results are kept."""

    uri: Annotated[str, StringConstraints(pattern=r"^(file|s3)://[^\s]+$", max_length=1024)]
    """`s3://bucket/prefix`, or `file://path` on one machine or a shared volume."""
    secret_name: str | None = Field(default=None, min_length=1, max_length=253)
    """Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Without it the AWS client's default chain is used."""
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^\s]+$", max_length=1024)
    """Address of an S3 server that isn't AWS. Without it AWS_ENDPOINT_URL counts."""
    region: str | None = Field(default=None, min_length=1, max_length=64)
    """Region of the bucket."""
    path_style: bool | None = None
    """Address the bucket in the path and not in the host name. Unset: yes where `endpoint` isn't AWS."""
    checksums: Literal["whenSupported", "whenRequired"] = "whenSupported"
    """When the S3 client adds checksums of its own; some servers need `whenRequired`."""
