"""Folders in the cache: filled once on a node, by whoever comes first, and whole or absent."""

import fcntl
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

WORKERS = 8
"""Files that are hashed or downloaded at once."""
Item = TypeVar("Item")
Result = TypeVar("Result")


def filled_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """The folder, after `fill` has filled it; at once where it is there already.

    `fill` gets an empty folder that becomes `folder` at its end. Of several processes one fills and the others wait; if
    it dies, the next one begins anew.
    """
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():
            return folder
        for abandoned in folder.parent.glob(f".{folder.name}.part-*"):
            shutil.rmtree(abandoned)
        part = folder.with_name(f".{folder.name}.part-{uuid.uuid4().hex[:8]}")
        part.mkdir()
        try:
            fill(part)
            part.rename(folder)
        finally:
            if part.is_dir():
                shutil.rmtree(part)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # Closing the file lets it go.
        yield


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """`function` of each item, in order; the first error ends it."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
