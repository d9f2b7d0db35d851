"""Would compressing signals pay? Real rows of each kind, through zlib and (where it is installed) zstd.

    python benchmarks/signal_compression.py FOLDER [--text FILE] [--tokens 8192]

FOLDER is a teacher's checkpoint (`python examples/smollm2.py` prints one). Rows are those of the first tokens of FILE,
by default the pages of this project. Printed are the part of the bytes that is left and the rates of one thread. In
"planes" the bytes of a shard are grouped by their place in the value, which often makes numbers compressible.
"""

import argparse
import importlib
import importlib.util
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from distill_runtime.data.sequence import Sequence
from distill_runtime.signals.codec import DTYPES
from distill_runtime.signals.head_source import read_head
from distill_runtime.signals.row_format import RowFormat
from distill_runtime.signals.rows import encode_rows
from distill_runtime.teacher.transformers_engine import TransformersEngine

LENGTH = 512
"""Tokens of a sequence."""
Codec = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]


def codecs() -> dict[str, Codec]:
    """Compressors by name."""
    found: dict[str, Codec] = {"zlib-1": (lambda data: zlib.compress(data, 1), zlib.decompress)}
    if importlib.util.find_spec("zstandard") is not None:
        zstandard = importlib.import_module("zstandard")
        for level in (1, 3, 9):
            compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
            found[f"zstd-{level}"] = (compressor.compress, decompressor.decompress)
    return found


def sequences_of(text: str, folder: Path, tokens: int) -> list[Sequence]:
    """The text in pieces; every token but the first of each is a target."""
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"][:tokens]
    mask = np.arange(LENGTH) > 0
    pieces = [np.array(ids[at : at + LENGTH], dtype=np.int32) for at in range(0, len(ids) - LENGTH + 1, LENGTH)]
    return [Sequence(ids=piece, target_mask=mask) for piece in pieces]


def planes(data: bytes, width: int) -> bytes:
    """The first bytes of all values, then the second ones, …"""
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, width).T.tobytes()


def stored_rows(folder: Path, sequences: list[Sequence]) -> dict[str, tuple[bytes, int]]:
    """Bytes of all rows of each kind, and the bytes that planes are made by."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    head = read_head(folder, len(tokenizer))
    engine = TransformersEngine(folder, dtype="float32", gpus=0, max_batch_tokens=2048)
    states = [rows[:-1] for rows in engine.hidden_states([sequence.ids.tolist() for sequence in sequences])]
    shared = {"width": 64, "vocabulary": len(tokenizer), "temperature": 1.0}
    rows = {
        "hidden": RowFormat(kind="hidden", dtype="bfloat16", width=states[0].shape[1]),
        "topk": RowFormat.model_validate({"kind": "topk", "dtype": "float16", **shared}),
        "sampled": RowFormat.model_validate({"kind": "sampled", "dtype": None, **shared}),
    }
    stored: dict[str, tuple[bytes, int]] = {}
    for kind, row in rows.items():
        blocks = [encode_rows(s, block, row, head) for s, block in zip(sequences, states, strict=True)]
        whole = torch.cat(blocks).to(DTYPES[row.stored_dtype]).view(torch.uint8).numpy().tobytes()
        stored[kind] = whole, 2 if kind == "hidden" else row.row_bytes
    return stored


def seconds(work: Callable[[], bytes]) -> tuple[bytes, float]:
    """What it gives, and the faster of two runs."""
    result, first = timed(work)
    return result, min(first, timed(work)[1])


def timed(work: Callable[[], bytes]) -> tuple[bytes, float]:
    began = time.perf_counter()
    return work(), time.perf_counter() - began


def main() -> None:
    """Prints a line for each kind, form and compressor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--tokens", type=int, default=8_192)
    arguments = parser.parse_args()
    pages = [arguments.text] if arguments.text else sorted((Path(__file__).parents[1] / "docs").rglob("*.md"))
    sequences = sequences_of("\n".join(page.read_text() for page in pages), arguments.folder, arguments.tokens)
    print(f"{len(sequences)} sequences of {LENGTH} tokens")
    for kind, (data, width) in stored_rows(arguments.folder, sequences).items():
        for form, content in {"as stored": data, "planes": planes(data, width)}.items():
            for name, (compress, decompress) in codecs().items():
                packed, packing = seconds(lambda c=compress, d=content: c(d))
                back, unpacking = seconds(lambda c=decompress, d=packed: c(d))
                assert back == content
                size = len(content) / 2**20
                print(
                    f"  {kind:8} {form:10} {name:7} {len(packed) / len(content):6.1%} left, "
                    f"{size / packing:6.0f} MiB/s in, {size / unpacking:6.0f} MiB/s out"
                )


if __name__ == "__main__":
    main()
