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


class InfluentialLayers(Section):
    """The layers that change the teacher's states most (block influence, arXiv 2403.03853)."""

    keep: int = Field(ge=1, le=1024)
    """Number of layers to keep."""
    sequences: int = Field(default=32, ge=1, le=4096)
    """Training sequences over which the influence is measured; prepare runs the teacher over them on the processor."""


class TeacherLayers(Section):
    """Which of the teacher's layers the student starts from."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1, max_length=1024)
    """Numbers of the layers to keep, counted from 0, in rising order."""
    every: int | None = Field(default=None, ge=2, le=64)
    """Keep every Nth layer: 0, N, 2N, …"""
    by_influence: InfluentialLayers | None = None
    """Keep the layers that change the teacher's states most."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if [self.layers, self.every, self.by_influence].count(None) != 2:
            raise ValueError("give exactly one of layers, every and byInfluence")
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


NO_ADAPTER_DROPOUT = (
    "dropout must be 0: with dropout the result would depend on how the work is divided among workers and micro-batches"
)


class Adapter(Section):
    """A low-rank adapter. It alone is trained; the model's own weights stay as they are."""

    kind: Literal["lora", "dora"] = "lora"
    """`lora`: W + s·B·A (arXiv 2106.09685). `dora`: the same with a trained length for each row of the weight
    (arXiv 2402.09353)."""
    rank: int = Field(default=16, ge=1, le=4096)
    """Rank r of the adapter: rows of A, columns of B."""
    alpha: int = Field(default=32, ge=1, le=65536)
    """The scale s is alpha / rank."""
    rank_stabilised: bool = False
    """The scale s is alpha / √rank (arXiv 2312.03732)."""
    target_modules: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] | None = Field(
        default=None, min_length=1, max_length=256
    )
    """Names of the linear layers to adapt, as they end: `q_proj`, `layers.3.mlp.up_proj`. Unset: all but the output
    head."""
    dropout: float = Field(default=0.0, ge=0, le=1)
    """Must be 0. It is here so that a configuration of another trainer that has it is refused with the reason."""
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    """Seed of A before training; B begins with 0."""

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.dropout != 0:
            raise ValueError(NO_ADAPTER_DROPOUT)
        return self


ADAPTER_FREEZES = "with adapter all of the model's own weights are frozen: leave freeze out"


class Student(Section):
    """The model that is trained. Exactly one of `model` and `initialise`."""

    model: Uri | None = None
    """A pretrained model to start from."""
    initialise: Initialise | None = None
    """How to make a model to start from."""
    adapter: Adapter | None = None
    """Train a low-rank adapter and not the model's own weights. The exported model has it merged; the adapter by itself
    lies in `adapter` beside it."""
    freeze: list[Annotated[str, StringConstraints(min_length=1, max_length=256)]] = Field(default=[], max_length=256)
    """Weights that stay as they are: `embeddings` (the input embedding), `outputHead`, or patterns of the weights'
    names in transformers, such as `model.layers.[0-3].*`. A head that is tied to the embedding is the same tensor: give
    both or neither."""
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

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.adapter is not None and self.freeze:
            raise ValueError(ADAPTER_FREEZES)
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


class Signal(Section):
    """What the teacher says about each target token."""

    kind: Literal["hidden", "topk", "sampled"] = "hidden"
    """What is stored of the training data. `hidden`: the teacher's last hidden state; exact over the whole vocabulary.
    `topk`: the `k` most likely ids with their log-probabilities, and that of all others together. `sampled`: `samples`
    ids drawn from the teacher's distribution; unbiased. Held-out data and tasks always have hidden states, so that
    scores are exact and comparable."""
    k: int = Field(default=64, ge=1, le=4096)
    """Ids of a target with kind `topk`."""
    samples: int = Field(default=64, ge=1, le=4096)
    """Draws of a target with kind `sampled`."""
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
        if self.dtype not in ("auto", "float32") and (self.kind == "hidden") != (self.dtype == "bfloat16"):
            raise ValueError("dtype bfloat16 is for kind hidden, float16 for topk and sampled: leave it out")
        return self


class Transport(Section):
    """How signals travel from teacher to student."""

    kind: Literal["objectstore"] = "objectstore"
    """`objectstore`: as objects in `storage`."""


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


OPTIMIZER_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "betas": ("Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    "eps": ("Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"),
    "amsgrad": ("Adam", "AdamW"),
    "momentum": ("RMSprop", "SGD"),
    "dampening": ("SGD",),
    "nesterov": ("SGD",),
    "alpha": ("RMSprop",),
    "centered": ("RMSprop",),
    "rho": ("Adadelta",),
    "momentum_decay": ("NAdam",),
    "decoupled_weight_decay": ("Adam", "NAdam", "RAdam"),
}
"""Arguments of torch's optimizers, and which of them have each."""
TORCH_IS_A_KIND = "torch is given exactly when kind is torch"


def wrong_optimizer(argument: str) -> str:
    """What is said of an argument that the optimizer doesn't have."""
    *others, last = OPTIMIZER_ARGUMENTS[argument]
    names = f"{', '.join(others)} and {last}" if others else last
    return f"{argument} is an argument of {names} only"


class OptimizerArguments(Section):
    """Arguments by torch's own names; torch's defaults for those that aren't given."""

    model_config = ConfigDict(alias_generator=None)

    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] | None = None
    """Decay of the moments."""
    eps: float | None = Field(default=None, gt=0, le=1)
    """Added to the denominator."""
    amsgrad: bool | None = None
    """Divide by the largest second moment so far."""
    momentum: float | None = Field(default=None, ge=0, lt=1)
    """Momentum."""
    dampening: float | None = Field(default=None, ge=0, le=1)
    """Dampening of the momentum."""
    nesterov: bool | None = None
    """Nesterov's momentum; needs momentum, and no dampening."""
    alpha: float | None = Field(default=None, ge=0, lt=1)
    """Decay of the second moment."""
    centered: bool | None = None
    """Divide by the variance, not the second moment."""
    rho: float | None = Field(default=None, ge=0, lt=1)
    """Decay of the two means."""
    momentum_decay: float | None = Field(default=None, ge=0, le=1)
    """How fast the momentum rises."""
    decoupled_weight_decay: bool | None = None
    """Take weight decay off the weights, as AdamW does, and not add it to the gradients."""


class TorchOptimizer(Section):
    """An optimizer of `torch.optim` that works on each number of a weight by itself, as ZeRO needs it, and whose steps
    depend on the job's learning rate alone."""

    name: Literal["Adadelta", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "SGD"]
    """Its class."""
    arguments: OptimizerArguments = OptimizerArguments()
    """Its arguments. Learning rate and weight decay are fields of `optimizer`."""

    @model_validator(mode="after")
    def _known_arguments(self) -> Self:
        for argument in self.arguments.model_dump(exclude_none=True):
            if self.name not in OPTIMIZER_ARGUMENTS[argument]:
                raise ValueError(wrong_optimizer(argument))
        return self


class Optimizer(Section):
    """How gradients become steps."""

    kind: Literal["adamw", "sgd", "torch"] = "adamw"
    """`adamw`, `sgd` without momentum, or `torch`: the one that `torch` names."""
    torch: TorchOptimizer | None = None
    """Another optimizer of torch, for kind `torch`."""
    learning_rate: float = Field(default=1e-4, gt=0, le=100)
    """Peak learning rate."""
    weight_decay: float = Field(default=0.0, ge=0, le=10)
    """Weight decay of matrices; biases and norms have none. Decoupled for `adamw` and `sgd`; for `torch` as torch's
    optimizer does it."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the moments (AdamW)."""
    epsilon: float = Field(default=1e-8, gt=0, le=1)
    """Added to the denominator (AdamW)."""
    max_gradient_norm: float = Field(default=1.0, ge=0, le=1e9)
    """Gradients are clipped to this norm. 0: never."""

    @model_validator(mode="after")
    def _torch_is_a_kind(self) -> Self:
        if (self.kind == "torch") != (self.torch is not None):
            raise ValueError(TORCH_IS_A_KIND)
        return self


class Schedule(Section):
    """The learning rate as a function of the step and of the job's total steps."""

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    """Shape of the decay behind the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    minimum_ratio: float = Field(default=0.0, ge=0, le=1)
    """Where the decay ends, as a part of the peak."""


class Offload(Section):
    """What is kept in the worker's main memory and not on its GPU."""

    model_config = ConfigDict(alias_generator=None)

    device: Literal["cpu"] = "cpu"
    """Main memory."""
    pin_memory: bool = False
    """Pin the memory: faster copies, and memory that can't be swapped."""


class ZeroOptimization(Section):
    """DeepSpeed's `zero_optimization`, by its own names; DeepSpeed's defaults for those that aren't given."""

    model_config = ConfigDict(alias_generator=None)

    contiguous_gradients: bool | None = None
    """Copy gradients to one buffer as they are made."""
    reduce_scatter: bool | None = None
    """Reduce and scatter gradients, and not reduce them all."""
    reduce_bucket_size: int | None = Field(default=None, ge=1, le=2**40)
    """Numbers that are reduced at a time."""
    allgather_partitions: bool | None = None
    """Gather weights, and not broadcast them."""
    allgather_bucket_size: int | None = Field(default=None, ge=1, le=2**40)
    """Numbers that are gathered at a time."""
    overlap_comm: bool | None = None
    """Reduce gradients while the backward pass goes on."""
    round_robin_gradients: bool | None = None
    """Stages 1 and 2: spread the copying of gradients over the ranks."""
    sub_group_size: int | None = Field(default=None, ge=1, le=2**40)
    """Stage 3: numbers that the optimizer steps at a time."""
    stage3_prefetch_bucket_size: int | None = Field(default=None, ge=0, le=2**40)
    """Numbers of weights that are fetched ahead."""
    stage3_param_persistence_threshold: int | None = Field(default=None, ge=0, le=2**40)
    """Weights with fewer numbers aren't divided."""
    stage3_max_live_parameters: int | None = Field(default=None, ge=0, le=2**40)
    """Numbers of weights that are whole on a rank at a time."""
    stage3_max_reuse_distance: int | None = Field(default=None, ge=0, le=2**40)
    """A weight that is used again within this many numbers stays whole."""
    offload_optimizer: Offload | None = None
    """Keep the optimizer's states and the float32 weights in main memory; needs zeroStage 1 or more."""
    offload_param: Offload | None = None
    """Keep the weights in main memory; needs zeroStage 3."""


class DeepSpeed(Section):
    """Keys of DeepSpeed's own configuration that change memory and speed, and not the result. Everything else in it
    (batch sizes, accumulation, the ZeRO stage, precision, clipping, optimizer, schedule, checkpoints) follows from
    other fields and can't be given here."""

    model_config = ConfigDict(alias_generator=None)

    zero_optimization: ZeroOptimization = ZeroOptimization()
    """How ZeRO divides and gathers."""


OFFLOAD_OF_STATES = "offload_optimizer needs zeroStage 1 or more"
OFFLOAD_OF_WEIGHTS = "offload_param needs zeroStage 3"


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
    micro_batch_tokens: int | None = Field(default=None, ge=2, le=16_777_216)
    """Tokens, padding included, that one process reads at a time, in the place of `microBatch`: many short rows or few
    long ones. A longer row is read alone. Doesn't change the result."""
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
    deepspeed: DeepSpeed = DeepSpeed()
    """More of DeepSpeed's configuration, for memory and speed. Doesn't change the result."""
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

    @model_validator(mode="after")
    def _offload_of_what_is_divided(self) -> Self:
        zero = self.deepspeed.zero_optimization
        if zero.offload_optimizer is not None and self.zero_stage == 0:
            raise ValueError(OFFLOAD_OF_STATES)
        if zero.offload_param is not None and self.zero_stage != 3:
            raise ValueError(OFFLOAD_OF_WEIGHTS)
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


class Evaluation(Section):
    """What the report says of teacher, student before and student after, beside KL, agreement and perplexity."""

    tasks: list[Task] = Field(default=[], max_length=32)
    """Tasks to score."""
    samples: Samples = Samples()
    """Answers to show."""
    compare_with_teacher: bool | None = None
    """Score the teacher too, and tell KL and agreement with it. Unset: where `objective.distillationWeight` is above 0.
    A job that neither learns from the teacher nor is compared with it starts none."""

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
