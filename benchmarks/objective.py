"""Time and peak memory of the objective through both output heads: fused against plain PyTorch.

Usage: python benchmarks/objective.py [--tokens N] [--vocabulary N] [--width N] [--rounds N] [--threads N] [--check]
                                      [--divergence KIND] [--signal hidden|topk|sampled] [--device cpu|cuda] [--all]

A divergence plus cross entropy, forward and backward, gradients of the states and of the student's head, in float32 (on
GPUs with states and heads in bfloat16). On a processor every run is a process of its own, so that its peak is its own;
the two variants take turns, and the ratio of each turn counts, so that other work on the machine hits both. --all
measures every divergence and signal, and prints a table. With --check the exit code is 1 where the fused objective
needs a tenth of the memory or 0.9 of the time, or more.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, get_args

from distill_runtime.contract.sections import DivergenceKind

MEMORY_BOUND, TIME_BOUND = 0.1, 0.9
CROSS_ENTROPY_WEIGHT = 0.5
SPARSE_IDS = 64
GPU_REPEATS = 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576, help="hidden size of both sides")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both variants")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--divergence", default="forwardKL", choices=get_args(DivergenceKind))
    parser.add_argument(
        "--signal", default="hidden", choices=["hidden", "topk", "sampled"], help="64 ids of the others"
    )
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--all", action="store_true", help="every divergence and signal")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is missed")
    parser.add_argument("--variant", choices=["fused", "plain"], help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run of one variant in this process."""
    import torch

    from distill_runtime.contract.sections import Divergence, Objective
    from distill_runtime.losses import reference
    from distill_runtime.losses.fused_linear import fused_linear_objective
    from distill_runtime.signals.head import HeadDescription, OutputHead
    from distill_runtime.signals.teacher_rows import HiddenRows, SampledRows, TopKRows

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens, vocabulary, width, device = options.tokens, options.vocabulary, options.width, options.device
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    student = torch.randn(tokens, width, device=device).to(dtype).requires_grad_()
    states = torch.randn(tokens, width, device=device).to(dtype)
    student_weight = (torch.randn(vocabulary, width, device=device) * 0.05).to(dtype).requires_grad_()
    teacher_weight = (torch.randn(vocabulary, width, device=device) * 0.05).to(dtype)
    targets = torch.randint(0, vocabulary, (tokens,), device=device)
    head = HeadDescription(hidden_size=width, padded_vocabulary=vocabulary, vocabulary=vocabulary)
    objective = Objective(divergences=[Divergence(kind=options.divergence)], cross_entropy_weight=CROSS_ENTROPY_WEIGHT)
    ids = torch.rand(tokens, vocabulary, device=device).topk(SPARSE_IDS, dim=-1).indices
    logs = torch.log_softmax(torch.randn(tokens, SPARSE_IDS + 1, device=device), -1)
    rows = {
        "hidden": HiddenRows(states, OutputHead(head, teacher_weight)),
        "topk": TopKRows(ids, logs[:, :-1].contiguous(), logs[:, -1].contiguous()),
        "sampled": SampledRows(ids, logs[:, :-1].exp()),
    }[options.signal]

    def fused() -> torch.Tensor:
        return fused_linear_objective(
            student, student_weight, rows, targets, student_head=head, objective=objective
        ).total

    def plain() -> torch.Tensor:
        with torch.no_grad():
            teacher = (states @ teacher_weight.T).float() if isinstance(rows, HiddenRows) else rows
        logits = (student @ student_weight.T).float()
        if options.signal != "hidden" or options.divergence != "forwardKL":
            return reference.objective_total(logits, teacher, targets, objective)
        # What people write.
        student_log, teacher_log = torch.log_softmax(logits, -1), torch.log_softmax(teacher, -1)
        divergence = torch.nn.functional.kl_div(student_log, teacher_log, reduction="sum", log_target=True)
        return divergence + CROSS_ENTROPY_WEIGHT * torch.nn.functional.nll_loss(student_log, targets, reduction="sum")

    run = fused if options.variant == "fused" else plain
    figures = measure_on_gpu(run, torch) if device == "cuda" else measure_on_processor(run, torch)
    assert student.grad is not None
    assert student_weight.grad is not None
    norms = [student.grad.float().norm().item(), student_weight.grad.float().norm().item()]
    return {**figures, "result": [figures["total"], *norms]}


def measure_on_processor(run: Callable[[], Any], torch: Any) -> dict[str, float]:
    (torch.randn(512, 512) @ torch.randn(512, 512)).exp()  # starts the threads
    before = resident_bytes()
    start = time.perf_counter()
    total = run()
    total.backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "bytes": peak - before, "total": total.item()}


def measure_on_gpu(run: Callable[[], Any], torch: Any) -> dict[str, float]:
    total = run()
    total.backward()  # Loads kernels; gradients are then there in both variants.
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for _ in range(GPU_REPEATS):
        run().backward()
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / GPU_REPEATS
    return {"seconds": seconds, "bytes": torch.cuda.max_memory_allocated() - before, "total": total.item()}


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_of(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own; on a GPU, which tells the peak of a part of a process, in this one."""
    if options.device == "cuda":
        return measure(argparse.Namespace(**{**vars(options), "variant": variant}))
    command = [sys.executable, __file__, "--variant", variant]
    for name in ("tokens", "vocabulary", "width", "threads", "divergence", "signal", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace, *, told: Callable[[str], None]) -> tuple[float, float]:
    """Medians of the ratios fused / plain: time and memory."""
    times: list[float] = []
    memories: list[float] = []
    tolerance = 1e-4 if options.device == "cpu" else 2e-2
    for number in range(options.rounds):
        order = ["fused", "plain"] if number % 2 == 0 else ["plain", "fused"]
        found = {variant: run_of(variant, options) for variant in order}
        for one, other in zip(found["fused"]["result"], found["plain"]["result"], strict=True):
            assert abs(one - other) <= tolerance * abs(other), f"the variants differ: {found}"
        times.append(found["fused"]["seconds"] / found["plain"]["seconds"])
        memories.append(found["fused"]["bytes"] / found["plain"]["bytes"])
        for variant in ("plain", "fused"):
            run = found[variant]
            told(
                f"  round {number + 1} {variant}: {run['seconds']:7.3f} s, {run['bytes'] / 2**20:7.0f} MiB above inputs"
            )
    return statistics.median(times), statistics.median(memories)


def table(options: argparse.Namespace) -> None:
    """Every divergence of every signal that defines it."""
    print("| divergence | signal | time, fused / plain | memory, fused / plain |")
    print("| --- | --- | --- | --- |")
    for signal in ("hidden", "topk", "sampled"):
        for kind in get_args(DivergenceKind) if signal != "sampled" else ("forwardKL",):
            options.signal, options.divergence = signal, kind
            time_ratio, memory_ratio = compare(options, told=lambda _: None)
            print(f"| `{kind}` | `{signal}` | {time_ratio:.2f} | 1/{1 / memory_ratio:.1f} |", flush=True)


def main() -> int:
    options = arguments()
    if options.variant is not None:
        print(json.dumps(measure(options)))
        return 0
    print(
        f"{'every divergence' if options.all else f'{options.divergence} of {options.signal} rows'} and cross entropy, "
        f"forward and backward, on {options.device}: {options.tokens:,} tokens, vocabulary {options.vocabulary:,}, "
        f"width {options.width}, {options.threads} threads"
    )
    if options.all:
        table(options)
        return 0
    time_ratio, memory_ratio = compare(options, told=print)
    print(f"fused / plain: time {time_ratio:.2f} (below {TIME_BOUND}), memory 1/{1 / memory_ratio:.1f} (below 1/10)")
    missed = time_ratio >= TIME_BOUND or memory_ratio >= MEMORY_BOUND
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
