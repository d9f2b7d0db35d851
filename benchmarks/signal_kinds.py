"""What each kind of signal costs beside the teacher and in the student: bytes, encoding, decoding.

    python benchmarks/signal_kinds.py [--vocabulary 151936] [--hidden 2560] [--targets 8192] [--sequences 16]

States and head are random, of the size of Qwen3-4B by default; on a GPU where there is one, in bfloat16 there. Encoding
starts from states on the CPU, as engines hand them out, and ends with rows on the CPU; decoding starts from stored rows
on the CPU and ends on the device. Hidden states are not encoded; the student still has to multiply them by the head.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from distill_runtime.data.sequence import Sequence
from distill_runtime.signals.head import HeadDescription, OutputHead
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import decode_rows, encode_rows

REPEATS = 5


def best_seconds(work: Callable[[], object], device: torch.device) -> float:
    """The fastest of several runs, after one that warms up."""
    work()
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times)


def random_head(vocabulary: int, hidden: int, device: torch.device) -> OutputHead:
    """Logits with a standard deviation of about 3, so that distributions have a few likely ids and a long tail."""
    description = HeadDescription(hidden_size=hidden, padded_vocabulary=vocabulary, vocabulary=vocabulary)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    weight = torch.randn(vocabulary, hidden, device=device, dtype=dtype) * (3 / hidden**0.5)
    return OutputHead(description=description, weight=weight)


def formats(vocabulary: int, hidden: int) -> dict[str, RowFormat]:
    """The kinds as a user gets them who writes only `kind`."""
    shared = {"vocabulary": vocabulary, "temperature": 1.0, "width": 64}
    return {
        "hidden": RowFormat(kind="hidden", dtype="bfloat16", width=hidden),
        "topk": RowFormat.model_validate({"kind": "topk", "dtype": "float16", **shared}),
        "sampled": RowFormat.model_validate({"kind": "sampled", "dtype": None, **shared}),
    }


def main() -> None:
    """Prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=2_560)
    parser.add_argument("--targets", type=int, default=8_192)
    parser.add_argument("--sequences", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    head = random_head(arguments.vocabulary, arguments.hidden, device)
    length = arguments.targets // arguments.sequences
    mask = np.arange(length + 1) > 0
    sequences = [
        Sequence(ids=np.full(length + 1, number, dtype=np.int32), target_mask=mask)
        for number in range(arguments.sequences)
    ]
    states = [torch.randn(length, arguments.hidden).to(head.weight.dtype) for _ in sequences]
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(
        f"{arguments.targets} targets, V = {arguments.vocabulary}, h = {arguments.hidden}, {where}; best of {REPEATS}"
    )
    for kind, row in formats(arguments.vocabulary, arguments.hidden).items():

        def encode(row: RowFormat = row) -> list[torch.Tensor]:
            return [encode_rows(s, rows, row, head) for s, rows in zip(sequences, states, strict=True)]

        stored = torch.cat(encode())
        encoding = best_seconds(encode, device) if kind != "hidden" else 0.0
        decoding = best_seconds(lambda row=row, stored=stored: decode_rows(stored.to(device), row, head), device)
        print(
            f"  {kind:8} {row.row_bytes:6} bytes a target, encoded "
            f"{arguments.targets / encoding if encoding else float('inf'):10,.0f} and decoded "
            f"{arguments.targets / decoding:12,.0f} targets/s"
        )


if __name__ == "__main__":
    main()
