"""Models by URI: found, downloaded where they are far, checked for what is missing, and pinned by their content."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from distill_runtime.artifacts import fetch_folder
from distill_runtime.cache import filled_once, in_threads
from distill_runtime.contract.sections import Storage
from distill_runtime.digests import digest_of, digest_of_file
from distill_runtime.errors import UserError
from distill_runtime.locations import bucket_and_key, hub_endpoint, hub_errors, hub_location, local_path, scheme_of
from distill_runtime.prepared import ModelPin
from distill_runtime.store.base import ObjectInfo, ObjectStore
from distill_runtime.store.s3 import S3Store

CONFIG = "config.json"
SAFETENSORS_INDEX = "model.safetensors.index.json"
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "*.tiktoken",
)
"""Any of these makes a tokenizer."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Weights that run code when they are loaded."""
NEEDED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.py", "merges.txt", "vocab.txt")
"""Files that matter to a model, all at the top of its folder."""
NOT_NEEDED = (
    "consolidated*.safetensors",
    "*.bin.index.json",
    "trainer_state.json",
    "all_results.json",
    "manifest.json",
)
"""Files that look like it and don't: weights once more in another layout, and what trainers leave behind."""


@dataclass(frozen=True)
class ResolvedModel:
    """A model on this machine."""

    folder: Path
    """Its Hugging Face folder. Not to be written to."""
    pin: ModelPin
    """Exactly these files."""


def is_needed(name: str) -> bool:
    """Does a file of this name, at the top of a model's folder, matter to the model?"""
    return (
        not name.startswith(".")
        and any(fnmatchcase(name, pattern) for pattern in NEEDED)
        and not any(fnmatchcase(name, pattern) for pattern in NOT_NEEDED)
    )


def is_weights(name: str) -> bool:
    """Is a file of this name weights, or their index?"""
    return name.endswith(".safetensors") or name == SAFETENSORS_INDEX


def resolve_model(
    uri: str,
    storage: Storage,
    *,
    cache: Path,
    store: ObjectStore | None = None,
    require_weights: bool = True,
    require_tokenizer: bool = True,
) -> ResolvedModel:
    """The model of a URI: `file://`, `pvc://`, `s3://`, `hf://`, or `store://<key>`, an artifact in `store`.

    Without `require_weights` a folder with a configuration alone will do (a random student needs no more), and weights
    that are there aren't part of the digest.

    Raises
    ------
    UserError
        There is no such model, a file that it needs is missing or can't be read, or its weights are pickles.
    RetryError
        The store or the Hub failed.
    """
    match scheme_of(uri):
        case "file" | "pvc":
            folder, pinned = local_path(uri), uri
        case "s3":
            folder, pinned = _from_bucket(uri, storage, cache), uri
        case "hf":
            folder, pinned = _from_hub(uri, cache, weights=require_weights)
        case "store":
            if store is None:
                raise ValueError(f"{uri} needs a store")
            folder, pinned = fetch_folder(store, uri.removeprefix("store://"), cache / "artifacts"), uri
        case scheme:
            raise UserError(f"{uri}: {scheme}:// is none of file://, pvc://, s3:// and hf://.", reason="BadModel")
    digest = _reading(uri, lambda: _checked_digest(uri, folder, require_weights, require_tokenizer))
    return ResolvedModel(folder, ModelPin(uri=pinned, digest=digest))


def resolve_pin(
    pin: ModelPin,
    storage: Storage,
    *,
    cache: Path,
    store: ObjectStore | None = None,
    require_weights: bool = True,
    require_tokenizer: bool = True,
) -> Path:
    """The folder of a model that was pinned before.

    Raises
    ------
    UserError
        As `resolve_model`; or the files have changed since.
    """
    found = resolve_model(
        pin.uri,
        storage,
        cache=cache,
        store=store,
        require_weights=require_weights,
        require_tokenizer=require_tokenizer,
    )
    if found.pin.digest != pin.digest:
        raise UserError(
            f"{pin.uri} has changed since the job was prepared: start a new job for the new files.",
            reason="ModelChanged",
        )
    return found.folder


def _reading(uri: str, read: Callable[[], str]) -> str:
    try:
        return read()
    except PermissionError as error:
        raise UserError(
            f"{uri}: {error.filename} can't be read by this user (id {os.geteuid()}): give it mode 0644, and its "
            "folders 0755.",
            reason="ModelUnreadable",
        ) from error
    except OSError as error:
        raise UserError(
            f"{uri}: {error.filename} can't be read ({error.strerror}).", reason="ModelUnreadable"
        ) from error


def _checked_digest(uri: str, folder: Path, require_weights: bool, require_tokenizer: bool) -> str:
    """Digest over names and contents of the files that matter, whatever the folder is called."""
    if not folder.is_dir():
        raise UserError(f"{uri}: there is no folder {folder}.", reason="ModelMissing")
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    _check_config(uri, folder, names)
    if require_tokenizer and not any(fnmatchcase(name, pattern) for name in names for pattern in TOKENIZERS):
        raise UserError(
            f"{uri} has no tokenizer: put tokenizer.json and tokenizer_config.json beside {CONFIG}.",
            reason="NoTokenizer",
        )
    needed = [name for name in names if is_needed(name) and (require_weights or not is_weights(name))]
    digests = in_threads(lambda name: digest_of_file(folder / name), needed)
    if require_weights:
        _check_weights(uri, folder, names)
    return digest_of(dict(zip(needed, digests, strict=True)))


def _check_config(uri: str, folder: Path, names: list[str]) -> None:
    if CONFIG not in names:
        hint = "; an adapter alone is not enough, merge it first" if "adapter_config.json" in names else ""
        raise UserError(
            f"{uri} has no {CONFIG}: give a folder in Hugging Face format{hint}.", reason="NoModelConfiguration"
        )
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise UserError(f"{uri}: {CONFIG} is no JSON ({error}).", reason="NoModelConfiguration") from error
    if not isinstance(config, dict):
        raise UserError(f"{uri}: {CONFIG} must hold a JSON object.", reason="NoModelConfiguration")


def _check_weights(uri: str, folder: Path, names: list[str]) -> None:
    files = [name for name in names if name.endswith(".safetensors") and is_needed(name)]
    if SAFETENSORS_INDEX in names:
        files = _indexed_files(uri, folder)
        lost = [name for name in files if name not in names]
        if lost:
            raise UserError(f"{uri} lacks {lost[0]}, which {SAFETENSORS_INDEX} names: copy it too.", reason="NoWeights")
    if not files:
        pickles = [name for name in names if any(fnmatchcase(name, pattern) for pattern in PICKLES)]
        advice = (
            f"{pickles[0]} can run code when it is loaded and is refused: save the model with safetensors"
            if pickles
            else "put model.safetensors there"
        )
        raise UserError(f"{uri} has no safetensors weights: {advice}.", reason="NoWeights")
    for name in files:
        try:
            with safe_open(folder / name, framework="numpy"):
                pass
        except SafetensorError as error:
            raise UserError(
                f"{uri}: {name} is no whole safetensors file ({error}): copy it again.", reason="BrokenWeights"
            ) from error


def _indexed_files(uri: str, folder: Path) -> list[str]:
    try:
        return sorted(set(json.loads((folder / SAFETENSORS_INDEX).read_bytes())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{uri}: {SAFETENSORS_INDEX} is no index of weights.", reason="BrokenWeights") from error


def _from_bucket(uri: str, storage: Storage, cache: Path) -> Path:
    bucket, path = bucket_and_key(uri)
    prefix = f"{path.rstrip('/')}/" if path.strip("/") else ""
    source = S3Store(bucket, "", storage)
    listed = list(source.list(prefix))
    found = [info for info in listed if "/" not in info.key.removeprefix(prefix)]
    if not found:
        raise UserError(f"{uri}: there is nothing below it in the bucket.", reason="ModelMissing")
    wanted = [info for info in found if is_needed(info.key.removeprefix(prefix))]
    # Pickles aren't downloaded, but that they are there makes a better sentence.
    marks = [info for info in found if any(fnmatchcase(info.key, pattern) for pattern in PICKLES)]
    version = digest_of([uri, storage.endpoint, [[info.key, info.size, info.tag] for info in wanted]])

    def fill(folder: Path) -> None:
        def fetch(info: ObjectInfo) -> None:
            source.download(info.key, folder / info.key.removeprefix(prefix))

        in_threads(fetch, wanted)
        for info in marks:
            (folder / info.key.removeprefix(prefix)).touch()

    return filled_once(cache / "models" / version, fill)


def _from_hub(uri: str, cache: Path, *, weights: bool) -> tuple[Path, str]:
    """The folder, and the URI with its commit."""
    location = hub_location(uri)
    if location.kind != "model":
        raise UserError(f"{uri} is a data set: a model is written hf://organisation/name.", reason="BadModel")
    below = f"{location.path}/" if location.path else ""
    needed = [pattern for pattern in NEEDED if weights or not is_weights(pattern)]
    own_cache = None if {"HF_HOME", "HF_HUB_CACHE"} & os.environ.keys() else cache / "huggingface"
    with hub_errors(uri):
        snapshot = snapshot_download(
            location.repository,
            revision=location.revision,
            allow_patterns=[below + pattern for pattern in needed],
            ignore_patterns=[f"{below}*/*", *(below + pattern for pattern in NOT_NEEDED)],
            cache_dir=own_cache,
            endpoint=hub_endpoint(),
        )
    return Path(snapshot) / location.path, location.at(Path(snapshot).name)
