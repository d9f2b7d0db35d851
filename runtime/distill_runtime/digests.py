"""Addresses by content: what made a thing names it."""

import hashlib
import json
from pathlib import Path
from typing import Any


def digest_of(content: Any) -> str:
    """The sha256 (hex) of JSON-able `content`, the same whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_bytes(data: bytes | memoryview) -> str:
    """The sha256 (hex) of `data`."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """The sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
