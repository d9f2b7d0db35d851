"""Signals as bytes: encode, verify and decode against plain safetensors, in one process.

    python benchmarks/signal_codec.py [--rows 16384] [--hidden 2560] [--dtype bfloat16]

"plain" is safetensors' own save and load of the same rows as one tensor, without checksums and without a finite check.
"""

import argparse
import os
import time
from collections.abc import Callable

import torch
from safetensors.torch import load, save

from distill_runtime.digests import digest_of_bytes
from distill_runtime.signals.codec import DTYPES, copy_span, decode_span, encode_shard
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.spans import EncodedShard

REPEATS = 7


def best_seconds(work: Callable[[], object]) -> float:
    """The fastest of several runs: other processes only make it slower."""
    times: list[float] = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def decode_whole(encoded: EncodedShard, row: RowFormat) -> list[torch.Tensor]:
    """A whole shard: one checksum over all of it."""
    assert digest_of_bytes(encoded.data) == encoded.sha256
    view = memoryview(encoded.data)
    return [copy_span(view[s.start : s.start + s.length], s, row) for s in encoded.spans]


def decode_ranges(encoded: EncodedShard, row: RowFormat) -> list[torch.Tensor]:
    """Each sequence by itself: one checksum for each."""
    view = memoryview(encoded.data)
    return [decode_span(view[s.start : s.start + s.length], s, row) for s in encoded.spans]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=16_384)
    parser.add_argument("--hidden", type=int, default=2_560)
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    arguments = parser.parse_args()
    row = RowFormat(kind="hidden", dtype=arguments.dtype, width=arguments.hidden)
    torch.manual_seed(0)
    stored = torch.randn(arguments.rows, arguments.hidden).to(DTYPES[arguments.dtype])
    rows = [block.clone() for block in torch.tensor_split(stored, arguments.sequences)]
    targets = [len(block) for block in rows]
    encoded = encode_shard(rows, targets, row)
    plain = save({"states": stored})
    measured = {
        "plain save (one tensor, ready)": lambda: save({"states": stored}),
        "plain cat and save": lambda: save({"states": torch.cat(rows)}),
        "encode (finite check, checksums)": lambda: encode_shard(rows, targets, row),
        "sha256 alone": lambda: digest_of_bytes(encoded.data),
        "plain load": lambda: load(plain),
        "decode a whole shard, verified": lambda: decode_whole(encoded, row),
        "decode each sequence, verified": lambda: decode_ranges(encoded, row),
    }
    size = stored.nbytes / 2**20
    print(f"{arguments.dtype} [{arguments.rows}, {arguments.hidden}], {size:.0f} MiB, {arguments.sequences} sequences,")
    print(f"{torch.get_num_threads()} threads of {os.cpu_count()} cores; best of {REPEATS}")
    for name, work in measured.items():
        print(f"  {name:34} {size / best_seconds(work):8.0f} MiB/s")


if __name__ == "__main__":
    main()
