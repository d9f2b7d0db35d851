"""The teacher on vLLM, in this process: prefill only, final normed hidden states of every position."""

import importlib.util
import logging
import math
import os
from collections.abc import Sequence as Many
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedConfig

from distill_runtime.errors import RetryError, UserError
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.teacher.engine import TeacherEngine

SEQUENCES_AT_ONCE = 256
"""Sequences that vLLM reads in one step, at most."""
CACHE_BLOCK = 128
"""Tokens by which each sequence's cache is rounded up, at most (vLLM's largest block)."""


class PooledAnswer(Protocol):
    """What is read of vLLM's answer to one request."""

    @property
    def prompt_token_ids(self) -> list[int]:
        """The ids that were scored."""
        ...

    @property
    def outputs(self) -> Any:
        """`.data` is the tensor of states [length, hidden_size]."""
        ...


class VllmEngine(TeacherEngine):
    """vLLM as a pooling engine: `token_embed` without activation returns the last normed state of every position.

    Parameters
    ----------
    folder
        The teacher's checkpoint; `architectures.check_engine` says whether its states are the right ones.
    dtype
        Precision of the forward pass and of the states.
    gpus
        GPUs of this replica (tensor parallel); 0 runs on the processor.
    max_batch_tokens
        Tokens of one step; raised to `longest` where that is more, since a sequence is read as a whole.
    longest
        Tokens of the longest sequence that will be asked for.
    beside_bytes
        Memory of the first GPU that somebody else needs: vLLM would take nearly all of it.

    Raises
    ------
    UserError
        vLLM can't run this checkpoint with these settings.
    RetryError
        vLLM didn't start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: ResolvedPrecision,
        gpus: int,
        max_batch_tokens: int,
        longest: int,
        beside_bytes: int = 0,
        trust_remote_code: bool = False,
    ) -> None:
        if importlib.util.find_spec("vllm") is None:
            raise UserError(
                "vLLM is not installed here: set teacher.engine to transformers, or install the extra cpu or gpu.",
                reason="NoEngine",
            )
        _set_environment(gpus)
        # vLLM reads its environment when it is imported, and a replica without work should never pay for the import.
        from vllm import LLM, EngineArgs, PoolingParams
        from vllm.config import PoolerConfig
        from vllm.platforms import current_platform

        _check_device(gpus, on_processor=current_platform.is_cpu())
        tokens = max(max_batch_tokens, longest)
        arguments: dict[str, Any] = {
            "model": str(folder),
            "runner": "pooling",
            "convert": "embed",
            "pooler_config": PoolerConfig(task="token_embed", use_activation=False),
            "hf_overrides": {"head_dtype": "model"},
            "dtype": dtype,
            "seed": 0,
            "tensor_parallel_size": max(1, gpus),
            "max_model_len": longest,
            "max_num_batched_tokens": tokens,
            "max_num_seqs": min(SEQUENCES_AT_ONCE, tokens),
            "enable_prefix_caching": False,
            "enable_chunked_prefill": False,
            "enforce_eager": gpus == 0,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "trust_remote_code": trust_remote_code,
        }
        if gpus > 0 and beside_bytes > 0:
            total = current_platform.get_device_total_memory()
            usual = EngineArgs.gpu_memory_utilization
            arguments["gpu_memory_utilization"] = memory_share(usual, total=total, beside=beside_bytes)
        try:
            model = EngineArgs(**arguments).create_model_config()
        except ValueError as error:
            raise UserError(
                f"vLLM can't run the teacher in {folder}: {_first_line(error)}", reason="BadModel"
            ) from error
        if gpus == 0:
            arguments["kv_cache_memory_bytes"] = cache_bytes(model.hf_text_config, tokens=tokens, dtype=model.dtype)
        try:
            self._llm = LLM(**arguments)
        except (ValueError, RuntimeError, OSError) as error:
            raise RetryError(f"vLLM did not start: {_first_line(error)}", reason="EngineFailed") from error
        self._params = PoolingParams(use_activation=False)
        self._hidden_size = int(model.hf_text_config.hidden_size)

    def hidden_states(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        """States of every position, [length, hidden_size] for each sequence, on the CPU, in the order asked.

        Raises
        ------
        RetryError
            vLLM failed, or answered with other rows than it was asked for.
        """
        if not sequences:
            return []
        try:
            answers = self._llm.encode(
                [{"prompt_token_ids": ids} for ids in sequences],
                pooling_params=self._params,
                pooling_task="token_embed",
                use_tqdm=False,
            )
        except (ValueError, RuntimeError) as error:
            raise RetryError(f"vLLM failed while scoring: {_first_line(error)}", reason="EngineFailed") from error
        return checked_states(sequences, answers, self._hidden_size)

    def close(self) -> None:
        """Frees the engine, its memory and the process groups that vLLM made."""
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        if hasattr(self, "_llm"):
            self._llm.llm_engine.engine_core.shutdown()
            del self._llm
            cleanup_dist_env_and_memory()


def checked_states(asked: list[list[int]], answers: Many[PooledAnswer], hidden_size: int) -> list[torch.Tensor]:
    """The states [length, hidden_size] of each answer, on the CPU and in storage of their own.

    Raises
    ------
    RetryError
        An answer belongs to another request, or has not one row of the right width for each token.
    """
    if len(answers) != len(asked):
        raise RetryError(
            f"vLLM answered {len(answers)} sequences of {len(asked)} that it was asked for.", reason="WrongAnswer"
        )
    states: list[torch.Tensor] = []
    for number, (ids, answer) in enumerate(zip(asked, answers, strict=True)):
        if list(answer.prompt_token_ids) != list(ids):
            raise RetryError(f"vLLM answered sequence {number} with the ids of another one.", reason="WrongAnswer")
        data = answer.outputs.data
        if not isinstance(data, torch.Tensor) or tuple(data.shape) != (len(ids), hidden_size):
            found = tuple(data.shape) if isinstance(data, torch.Tensor) else type(data).__name__
            raise RetryError(
                f"vLLM answered sequence {number} with states of shape {found}, wanted {(len(ids), hidden_size)}.",
                reason="WrongAnswer",
            )
        # On a processor the tensor is a view of the step's states: a copy lets the others of the step go.
        states.append(data.detach().to(device="cpu", copy=True))
    return states


def memory_share(usual: float, *, total: int, beside: int) -> float:
    """The part of a GPU's `total` bytes that vLLM may take: its usual one, less the bytes that are needed beside it."""
    return usual - beside / total


def cache_bytes(text: PreTrainedConfig, *, tokens: int, dtype: torch.dtype) -> int:
    """Bytes of a key-value cache for one step of `tokens` tokens, which is all that a prefill ever needs.

    Counts full attention in every layer (so models with windows or other mixers need less), and for each sequence of
    a step a block that is not full.
    """
    heads = int(getattr(text, "num_key_value_heads", None) or text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    rounded = tokens + CACHE_BLOCK * (min(SEQUENCES_AT_ONCE, tokens) + 1)
    bytes_per_token = 2 * int(text.num_hidden_layers) * heads * max(width, 32) * dtype.itemsize
    return math.ceil(rounded * bytes_per_token * 1.05)


def _set_environment(gpus: int) -> None:
    if gpus <= 1:
        # In this process: one that dies takes its engine along, and no port or child has to be looked after.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    # vLLM's own handlers would write past the format that the pod's logs have; only warnings are of interest.
    os.environ.setdefault("VLLM_CONFIGURE_LOGGING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    logging.getLogger("vllm").setLevel(logging.WARNING)


def _check_device(gpus: int, *, on_processor: bool) -> None:
    if on_processor and gpus > 0:
        raise UserError(
            f"teacher.gpus is {gpus}, but this vLLM was built for processors: set teacher.gpus to 0, "
            "or run the image for GPUs.",
            reason="NoGpu",
        )
    if not on_processor and gpus == 0:
        raise UserError(
            "teacher.gpus is 0, but this vLLM was built for GPUs: set teacher.gpus to 1 or more, "
            "or run the image for processors.",
            reason="NoProcessorBuild",
        )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Pydantic puts a heading and the field's name before the reason.
    reasons = [line for line in lines if "Value error," in line]
    return (reasons or lines or [type(error).__name__])[0].removeprefix("Value error, ")
