"""Tokens a second of the teacher on vLLM against transformers' forward without the output head, the same batches.

Usage: python benchmarks/teacher_throughput.py [--sequences 32] [--length 512] [--repeats 3] [--dtype float32]

The two engines run alternately, so that a busy machine is unfair to neither; medians are printed.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill_runtime.teacher.engine import TeacherEngine
from distill_runtime.teacher.transformers_engine import TransformersEngine
from distill_runtime.teacher.vllm_engine import VllmEngine
from examples.smollm2 import model_folder


def seconds(engine: TeacherEngine, sequences: list[list[int]]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    engine.hidden_states(sequences)
    return time.perf_counter() - began


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, default=None, help="a model's folder; SmolLM2-135M-Instruct without it")
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-batch-tokens", type=int, default=4096)
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--gpus", type=int, default=0)
    options = parser.parse_args()
    folder = options.model or model_folder()
    generator = torch.Generator().manual_seed(0)
    sequences = torch.randint(100, 40_000, (options.sequences, options.length), generator=generator).tolist()
    shape = {"dtype": options.dtype, "gpus": options.gpus, "max_batch_tokens": options.max_batch_tokens}
    engines: dict[str, TeacherEngine] = {
        "transformers": TransformersEngine(folder, **shape),
        "vllm": VllmEngine(folder, longest=options.length, **shape),
    }
    for engine in engines.values():
        seconds(engine, sequences[:2])
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(options.repeats):
        for name, engine in engines.items():
            taken[name].append(seconds(engine, sequences))
    tokens = options.sequences * options.length
    rates = {name: tokens / statistics.median(values) for name, values in taken.items()}
    where = "GPU" if options.gpus else "processor"
    print(f"{folder.name}, {options.dtype}, {where}, {options.sequences} sequences of {options.length} tokens")
    for name, rate in rates.items():
        spread = ", ".join(f"{tokens / value:.0f}" for value in taken[name])
        print(f"{name:>12}: {rate:8.0f} tokens/s (median of {spread})")
    print(f"vLLM / transformers without the head: {rates['vllm'] / rates['transformers']:.2f}")


if __name__ == "__main__":
    main()
