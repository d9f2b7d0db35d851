"""The sections of a DistillJob that the runtime reads: the one place of their defaults and bounds."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
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


class Teacher(Section):
    """The model that is imitated. It only reads: one prefill over each sequence, no generation."""

    model: Uri
    """Where the teacher's weights and tokenizer are."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """The engine that runs the teacher. `transformers` is for architectures that vLLM doesn't support; it is slower."""
    dtype: Precision = "auto"
    """Precision of the forward pass. `auto`: the checkpoint's own on GPUs; on processors bfloat16 where they have the
    instructions for it, else float32."""
    gpus: int = Field(default=1, ge=0, le=64)
    """GPUs of one replica (tensor parallel). 0 runs the teacher on the processor."""
    replicas: int = Field(default=1, ge=0, le=1024)
    """Teacher replicas that share the work."""
    max_batch_tokens: int = Field(default=8192, ge=64, le=1_048_576)
    """Tokens that the engine reads in one step."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along. Leave it off unless you have read that code."""


class TeacherLayers(Section):
    """Which of the teacher's layers the student starts from."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1, max_length=1024)
    """Numbers of the layers to keep, counted from 0, in rising order."""
    every: int | None = Field(default=None, ge=2, le=64)
    """Keep every Nth layer: 0, N, 2N, …"""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.layers is None) == (self.every is None):
            raise ValueError("give exactly one of layers and every")
        if self.layers is not None and sorted(set(self.layers)) != self.layers:
            raise ValueError("layers must rise and name each layer once")
        return self


class RandomWeights(Section):
    """A student with random weights."""

    config: Uri
    """A `config.json` of transformers, or a folder that holds one."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the random weights."""


class Initialise(Section):
    """How a student that isn't pretrained is made. Exactly one of the fields."""

    from_teacher: TeacherLayers | None = None
    """A copy of the teacher with fewer layers."""
    from_config: RandomWeights | None = None
    """Random weights; tokenizer and chat template come from the teacher."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.from_teacher is None) == (self.from_config is None):
            raise ValueError("give exactly one of fromTeacher and fromConfig")
        return self


class Student(Section):
    """The model that is trained. Exactly one of `model` and `initialise`."""

    model: Uri | None = None
    """A pretrained model to start from."""
    initialise: Initialise | None = None
    """How to make a model to start from."""
    workers: int = Field(default=1, ge=1, le=1024)
    """Student workers: pods in a cluster, groups of processes on one machine."""
    gpus_per_worker: int = Field(default=1, ge=0, le=16)
    """GPUs of one worker; each gets one process. 0 trains on the processor, with one process per worker."""
    trust_remote_code: bool = False
    """Run Python code that the model's repository brings along. Leave it off unless you have read that code."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.model is None) == (self.initialise is None):
            raise ValueError("give exactly one of model and initialise")
        return self


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


class Data(Section):
    """What the student learns from, and what it is judged on."""

    train: Uri | Annotated[list[Uri], Field(min_length=1, max_length=256)]
    """Training data: JSON Lines, CSV or Parquet files; `*`, `?` and `**` match many."""
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


class Signal(Section):
    """What the teacher says about each target token."""

    kind: Literal["hidden"] = "hidden"
    """`hidden`: the teacher's last hidden state; exact over the whole vocabulary."""
    mode: Literal["hybrid", "streaming", "offline"] = "hybrid"
    """`hybrid`: teacher and student at once, signals kept. `streaming`: at once, signals dropped behind the last
    checkpoint. `offline`: first the teacher, then the student."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Precision in which signals are stored."""
    shard_sequences: int = Field(default=64, ge=1, le=65536)
    """Sequences in one object of the store."""
    watermark_bytes: int = Field(default=64 * 2**30, ge=1)
    """In streaming mode teachers pause when they are this many bytes ahead of the student."""
    lease_seconds: float = Field(default=120, ge=1, le=86400)
    """A shard that a teacher took and didn't finish is taken by another one after this time."""


class Transport(Section):
    """How signals travel from teacher to student."""

    kind: Literal["objectstore"] = "objectstore"
    """`objectstore`: as objects in `storage`."""


class Objective(Section):
    """What is minimised: a weighted sum of the divergence from the teacher and the cross entropy on the data."""

    divergence: Literal["forwardKL"] = "forwardKL"
    """`forwardKL`: KL(teacher || student)."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Divides the logits of both sides of the divergence; the divergence is then multiplied by its square."""
    distillation_weight: float = Field(default=1.0, ge=0, le=1000)
    """Weight of the divergence."""
    cross_entropy_weight: float = Field(default=0.0, ge=0, le=1000)
    """Weight of the cross entropy on the data."""
    chunk_tokens: int | None = Field(default=None, ge=1, le=65536)
    """Tokens whose logits are held at a time. Unset: chosen from the vocabulary."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.distillation_weight == 0 and self.cross_entropy_weight == 0:
            raise ValueError("distillationWeight and crossEntropyWeight are both 0: nothing would be learned")
        return self


class Optimizer(Section):
    """How gradients become steps."""

    kind: Literal["adamw", "sgd"] = "adamw"
    """`adamw`, or `sgd` without momentum."""
    learning_rate: float = Field(default=1e-4, gt=0, le=100)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Decoupled weight decay of matrices; biases and norms have none."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the moments (AdamW)."""
    epsilon: float = Field(default=1e-8, gt=0, le=1)
    """Added to the denominator (AdamW)."""
    max_gradient_norm: float = Field(default=1.0, ge=0, le=1e9)
    """Gradients are clipped to this norm. 0: never."""


class Schedule(Section):
    """The learning rate as a function of the step and of the job's total steps."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay behind the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    minimum_ratio: float = Field(default=0.0, ge=0, le=1)
    """Where the decay ends, as a part of the peak."""


class Training(Section):
    """How the student is trained. At most one of `steps` and `epochs`; one epoch if neither is given."""

    steps: int | None = Field(default=None, ge=1)
    """Optimizer steps."""
    epochs: float | None = Field(default=None, gt=0, le=10000)
    """Passes over the data."""
    global_batch: int = Field(default=32, ge=1, le=1_048_576)
    """Sequences of one optimizer step, over all workers."""
    micro_batch: int = Field(default=4, ge=1, le=65536)
    """Rows that one process reads at a time. Doesn't change the result."""
    packing: bool = True
    """Put several sequences into one row. Doesn't change the result; refused where the model's attention crosses
    sequences."""
    optimizer: Optimizer = Optimizer()
    """How gradients become steps."""
    schedule: Schedule = Schedule()
    """How the learning rate moves."""
    precision: Precision = "auto"
    """Precision of the student's forward and backward pass; master weights are float32. `auto`: bfloat16 on GPUs;
    on processors bfloat16 where they have the instructions for it, else float32; float32 with `zeroStage: 0`, which
    has no 16-bit training."""
    zero_stage: Literal[0, 1, 2, 3] = 2
    """What DeepSpeed divides between the processes: 1 optimizer states, 2 gradients too, 3 weights too."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2"] = "auto"
    """Attention implementation of transformers."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of the order of the data."""
    shuffle_window_shards: int = Field(default=16, ge=1, le=65536)
    """Sequences are shuffled within this many shards; shards are shuffled as a whole."""
    checkpoint_every_steps: int = Field(default=100, ge=1)
    """Steps between checkpoints."""
    keep_checkpoints: int = Field(default=2, ge=1, le=1000)
    """Checkpoints to keep."""
    evaluate_every_steps: int = Field(default=100, ge=0)
    """Steps between held-out losses. 0: only at the start and the end."""
    stop_after_worse_evaluations: int = Field(default=0, ge=0, le=1000)
    """End early after so many held-out losses without a new best one. 0: never."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give at most one of steps and epochs")
        return self


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
