"""The teacher, the student, and what of it is trained."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from distill_runtime.contract.sections.section import Precision, Section, Uri


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


class ActiveNeurons(Section):
    """The inner neurons of each layer's feed-forward block that add most to its output (as arXiv 2306.11695 and
    2407.14679 measure it)."""

    keep: int = Field(ge=1, le=1_048_576)
    """Neurons to keep in each layer: the student's `intermediate_size`. GPUs like multiples of 128."""
    sequences: int = Field(default=32, ge=1, le=4096)
    """Training sequences over which it is measured; prepare runs the teacher over them on the processor."""


ONE_CHOICE_OF_LAYERS = "give exactly one of layers, every and byInfluence (or none of them beside neurons)"


class TeacherLayers(Section):
    """Which of the teacher's layers the student starts from, and how wide they are."""

    layers: list[Annotated[int, Field(ge=0)]] | None = Field(default=None, min_length=1, max_length=1024)
    """Numbers of the layers to keep, counted from 0, in rising order."""
    every: int | None = Field(default=None, ge=2, le=64)
    """Keep every Nth layer: 0, N, 2N, …"""
    by_influence: InfluentialLayers | None = None
    """Keep the layers that change the teacher's states most."""
    neurons: ActiveNeurons | None = None
    """Make the feed-forward blocks of these layers narrower; of all layers, where none are named."""

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        choices = 3 - [self.layers, self.every, self.by_influence].count(None)
        if choices > 1 or (choices == 0 and self.neurons is None):
            raise ValueError(ONE_CHOICE_OF_LAYERS)
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
