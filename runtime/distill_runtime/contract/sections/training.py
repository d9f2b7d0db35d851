"""The optimizer, its schedule, DeepSpeed and the course of the training."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from distill_runtime.contract.sections.section import Precision, Section

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
