"""Memory of one process of each role, from shapes alone: estimates for planning, in bytes.

What PyTorch, CUDA and NCCL take for themselves (1 to 2 GiB of a GPU) and fragmentation (some percent) come on top.
"""

from dataclasses import dataclass

from distill_runtime.contract.plan import MemoryPart
from distill_runtime.contract.sections import Training
from distill_runtime.losses.vocabulary import GPU_CHUNK_BYTES, PROCESSOR_CHUNK_BYTES
from distill_runtime.prepared import ResolvedPrecision

BYTES: dict[ResolvedPrecision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of transformers."""

    parameters: int
    trained: int
    """Weights that are trained; an adapter's are among `parameters` too."""
    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    head_size: int
    vocabulary: int
    """Rows of the output head."""

    @property
    def activations(self) -> int:
        """Values that one layer keeps of a token for the backward pass, with an attention that keeps no scores: inputs
        and outputs of norms and of both blocks, queries, keys, values, the attention's result, and the four of a gated
        MLP (after Korthikanti et al. 2022, arXiv:2205.05198, section 4.1)."""
        attention = 2 * (self.heads + self.key_value_heads) * self.head_size
        return 6 * self.hidden + attention + 4 * self.intermediate


def student_memory(
    shape: Shape,
    training: Training,
    precision: ResolvedPrecision,
    *,
    processes: int,
    gpus: bool,
    optimizer_states: int,
    tokens: int,
    teacher_head: int,
) -> list[MemoryPart]:
    """Memory of one process of the student.

    Parameters
    ----------
    processes
        Of the student in all: ZeRO divides between them.
    optimizer_states
        Tensors that the optimizer keeps of each trained weight.
    tokens
        Of a micro-batch, padding included.
    teacher_head
        Values of the teacher's output head, where the student reads hidden states; else 0.
    """
    size, stage = BYTES[precision], training.zero_stage
    masters = 0 if size == 4 else 1
    head = shape.vocabulary * shape.hidden
    chunks = 2 * (GPU_CHUNK_BYTES if gpus else PROCESSOR_CHUNK_BYTES)
    layers = shape.layers * (shape.hidden if training.gradient_checkpointing else shape.activations)
    once = shape.activations if training.gradient_checkpointing else 0
    gathered = head * size if stage == 3 else 0
    return [
        MemoryPart(name="weights", bytes=_divided(shape.parameters * size, processes, stage == 3) + gathered),
        MemoryPart(name="gradients (float32)", bytes=_divided(4 * shape.trained, processes, stage >= 2)),
        MemoryPart(
            name=f"optimizer ({'master weights and ' if masters else ''}{optimizer_states} states)",
            bytes=_divided(4 * shape.trained * (masters + optimizer_states), processes, stage >= 1),
        ),
        MemoryPart(name=f"activations of {tokens:,} tokens", bytes=tokens * (layers + once) * size),
        MemoryPart(
            name="objective (chunks of logits, the head's gradient)",
            bytes=chunks + 4 * head + 4 * tokens * shape.hidden,
        ),
        *([MemoryPart(name="the teacher's output head", bytes=teacher_head * size)] if teacher_head else []),
    ]


def teacher_memory(shape: Shape, precision: ResolvedPrecision, *, gpus: int, batch_tokens: int) -> list[MemoryPart]:
    """The least memory of one process of the teacher, which reads `batch_tokens` at a time over `gpus` GPUs (tensor
    parallel; 0 on a processor). An engine may take more for a larger cache."""
    size, parts = BYTES[precision], max(1, gpus)
    cache = 2 * shape.layers * shape.key_value_heads * shape.head_size
    working = 4 * shape.hidden + 3 * shape.intermediate // parts
    return [
        MemoryPart(name="weights", bytes=_divided(shape.parameters * size, parts, True)),
        MemoryPart(name="keys and values of a batch", bytes=_divided(batch_tokens * cache * size, parts, True)),
        MemoryPart(name=f"activations of {batch_tokens:,} tokens", bytes=batch_tokens * working * size),
        MemoryPart(name="states (float32)", bytes=4 * batch_tokens * shape.hidden),
    ]


def _divided(whole: int, parts: int, divides: bool) -> int:
    return -(-whole // parts) if divides else whole
