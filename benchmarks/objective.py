"""Time and peak memory of the objective through both output heads: fused against plain PyTorch, on the processor.

Usage: python benchmarks/objective.py [--tokens N] [--vocabulary N] [--width N] [--rounds N] [--threads N] [--check]

Forward KL plus cross entropy, forward and backward, gradients of the states and of the student's head, float32. Every
run is a process of its own, so that its peak is its own; the two variants take turns, and the ratio of each turn
counts, so that other work on the machine hits both. With --check the exit code is 1 where the fused objective needs a
tenth of the memory or 0.9 of the time, or more.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

MEMORY_BOUND, TIME_BOUND = 0.1, 0.9
CROSS_ENTROPY_WEIGHT = 0.5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576, help="hidden size of both sides")
    parser.add_argument("--rounds", type=int, default=3, help="turns of both variants")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--check", action="store_true", help="exit with 1 where a bound is missed")
    parser.add_argument("--variant", choices=["fused", "plain"], help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One run of one variant in this process."""
    import torch

    from distill_runtime.contract.sections import Objective
    from distill_runtime.losses.fused_linear import fused_linear_objective
    from distill_runtime.signals.head import HeadDescription, OutputHead

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    tokens, vocabulary, width = options.tokens, options.vocabulary, options.width
    student, teacher = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, width)
    student_weight = (torch.randn(vocabulary, width) * 0.05).requires_grad_()
    teacher_weight = torch.randn(vocabulary, width) * 0.05
    targets = torch.randint(0, vocabulary, (tokens,))
    head = HeadDescription(hidden_size=width, padded_vocabulary=vocabulary, vocabulary=vocabulary)
    objective = Objective(cross_entropy_weight=CROSS_ENTROPY_WEIGHT)

    def fused() -> torch.Tensor:
        return fused_linear_objective(
            student, student_weight, teacher, OutputHead(head, teacher_weight), targets,
            student_head=head, objective=objective,
        ).total  # fmt: skip

    def plain() -> torch.Tensor:
        with torch.no_grad():
            teacher_log = torch.log_softmax(teacher @ teacher_weight.T, -1)
        student_log = torch.log_softmax(student @ student_weight.T, -1)
        divergence = torch.nn.functional.kl_div(student_log, teacher_log, reduction="sum", log_target=True)
        return divergence + CROSS_ENTROPY_WEIGHT * torch.nn.functional.nll_loss(student_log, targets, reduction="sum")

    run = fused if options.variant == "fused" else plain
    (torch.randn(512, 512) @ torch.randn(512, 512)).exp()  # starts the threads
    before = resident_bytes()
    start = time.perf_counter()
    total = run()
    total.backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert student.grad is not None
    assert student_weight.grad is not None
    return {
        "seconds": seconds,
        "bytes": peak - before,
        "result": [total.item(), student.grad.norm().item(), student_weight.grad.norm().item()],
    }


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_own_process(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--variant", variant]
    for name in ("tokens", "vocabulary", "width", "threads"):
        command += [f"--{name}", str(getattr(options, name))]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    options = arguments()
    if options.variant is not None:
        print(json.dumps(measure(options)))
        return 0
    print(
        f"forward KL and cross entropy, forward and backward: {options.tokens:,} tokens, vocabulary "
        f"{options.vocabulary:,}, width {options.width}, float32, {options.threads} threads"
    )
    times: list[float] = []
    memories: list[float] = []
    for number in range(options.rounds):
        order = ["fused", "plain"] if number % 2 == 0 else ["plain", "fused"]
        found = {variant: in_own_process(variant, options) for variant in order}
        for one, other in zip(found["fused"]["result"], found["plain"]["result"], strict=True):
            assert abs(one - other) <= 1e-4 * abs(other), f"the variants differ: {found}"
        times.append(found["fused"]["seconds"] / found["plain"]["seconds"])
        memories.append(found["fused"]["bytes"] / found["plain"]["bytes"])
        for variant in ("plain", "fused"):
            run = found[variant]
            print(
                f"  round {number + 1} {variant}: {run['seconds']:6.2f} s, {run['bytes'] / 2**20:7.0f} MiB above inputs"
            )
    time_ratio, memory_ratio = statistics.median(times), statistics.median(memories)
    print(f"fused / plain: time {time_ratio:.2f} (below {TIME_BOUND}), memory 1/{1 / memory_ratio:.1f} (below 1/10)")
    missed = time_ratio >= TIME_BOUND or memory_ratio >= MEMORY_BOUND
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
