"""`auto` precision, resolved: what this machine and this checkpoint are good for."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import get_args

from distill_runtime.contract.sections import Precision
from distill_runtime.prepared import ResolvedPrecision

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Processor flags of instructions for bfloat16: AVX512-BF16 and AMX on x86, BF16 on Arm. Without them a matrix product
in bfloat16 takes many times as long as in float32."""


def processor_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The flags of this machine's processor; none where the system doesn't tell."""
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def checkpoint_dtype(folder: Path) -> str | None:
    """The precision that a model's `config.json` names, also where it nests the text model's; None without one."""
    config = json.loads((folder / "config.json").read_text())
    for section in (config, config.get("text_config"), config.get("llm_config")):
        if isinstance(section, dict):
            dtype = section.get("dtype") or section.get("torch_dtype")
            if isinstance(dtype, str):
                return dtype.removeprefix("torch.")
    return None


def resolve_precision(
    requested: Precision,
    *,
    checkpoint_dtype: str | None,
    gpus: int,
    flags: Collection[str] | None = None,
) -> ResolvedPrecision:
    """A precision with nothing left to choose.

    Anything but `auto` stays as it is. `auto` on GPUs is the checkpoint's own, and bfloat16 where that is no precision
    to compute in (a quantised checkpoint) or unknown; on processors (`gpus` 0) it is bfloat16 where the processor has
    the instructions, else float32, and never float16. `flags` replaces this machine's processor flags.
    """
    if requested != "auto":
        return requested
    if gpus == 0:
        present = processor_flags() if flags is None else flags
        return "float32" if BFLOAT16_FLAGS.isdisjoint(present) else "bfloat16"
    for precision in get_args(ResolvedPrecision):
        if precision == checkpoint_dtype:
            return precision
    return "bfloat16"
