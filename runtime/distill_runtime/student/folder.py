"""Writing a Hugging Face folder: weights in shards as they come, and the files that go along, readable by everybody."""

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors.torch import save_file

from distill_runtime.models import CONFIG, SAFETENSORS_INDEX, is_needed

SHARD_BYTES = 5 * 10**9
"""Largest file of weights; also what is held in memory while it is filled."""
READABLE = 0o644
"""Pods run as other users than the one that wrote the folder."""


class ShardWriter:
    """Takes tensors one by one and writes safetensors files of at most `shard_bytes` (a larger tensor gets its own).

    A context manager: at a good end the files get their final names, `model.safetensors` or numbered ones with an
    index. Equal tensors in equal order give equal bytes.
    """

    def __init__(self, folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._limit = shard_bytes
        self._open: dict[str, torch.Tensor] = {}
        self._open_bytes = 0
        self._shards: list[tuple[Path, list[str]]] = []
        self._bytes = 0
        self._names: set[str] = set()

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Takes a tensor over.

        Raises
        ------
        ValueError
            There is one of this name already.
        """
        if name in self._names:
            raise ValueError(f"two tensors are called {name}")
        self._names.add(name)
        size = tensor.numel() * tensor.element_size()
        if self._open and self._open_bytes + size > self._limit:
            self._flush()
        # A copy of its own storage: views of one storage can't be written, and would keep all of it in memory.
        self._open[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
        self._open_bytes += size
        self._bytes += size

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            return
        self._flush()
        if len(self._shards) == 1:
            self._shards[0][0].rename(self._folder / "model.safetensors")
            return
        places: dict[str, str] = {}
        for number, (path, names) in enumerate(self._shards, start=1):
            final = f"model-{number:05d}-of-{len(self._shards):05d}.safetensors"
            path.rename(self._folder / final)
            places |= dict.fromkeys(names, final)
        index = {"metadata": {"total_size": self._bytes}, "weight_map": dict(sorted(places.items()))}
        write_json(self._folder / SAFETENSORS_INDEX, index)

    def _flush(self) -> None:
        if not self._open and self._shards:
            return
        path = self._folder / f".model-{len(self._shards) + 1:05d}.part"
        save_file(self._open, path, metadata={"format": "pt"})
        path.chmod(READABLE)
        self._shards.append((path, list(self._open)))
        self._open, self._open_bytes = {}, 0


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Writes a readable JSON file."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    path.chmod(READABLE)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object."""
    document = json.loads(path.read_bytes())
    assert isinstance(document, dict), path
    return document


def copy_companions(source: Path, target: Path) -> None:
    """Copies what belongs to a model beside weights and configuration: tokenizer, chat template, generation settings,
    code."""
    for path in sorted(source.iterdir()):
        skipped = path.name in (CONFIG, SAFETENSORS_INDEX) or path.suffix == ".safetensors"
        if path.is_file() and is_needed(path.name) and not skipped:
            shutil.copyfile(path, target / path.name)
            (target / path.name).chmod(READABLE)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in the order of their names."""
    index = folder / SAFETENSORS_INDEX
    if index.exists():
        return [folder / name for name in sorted(set(read_json(index)["weight_map"].values()))]
    return sorted(path for path in folder.glob("*.safetensors") if is_needed(path.name))
