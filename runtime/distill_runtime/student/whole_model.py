"""All weights of the trained student: trained ones are in a checkpoint, the rest in the initial student's folder."""

from collections.abc import Iterable
from pathlib import Path

import torch

from distill_runtime.contract.run import RunConfig
from distill_runtime.prepared import Prepared
from distill_runtime.store.base import ObjectStore
from distill_runtime.student.adapter import merge_adapter


def whole_weights(
    trained: Iterable[tuple[str, torch.Tensor]],
    config: RunConfig,
    prepared: Prepared,
    store: ObjectStore,
    *,
    student_folder: Path,
    target: Path,
) -> Iterable[tuple[str, torch.Tensor]]:
    """Every parameter of the model to export, by its name in transformers; an adapter is merged, and kept in `target`.

    Parameters
    ----------
    trained
        The trained weights, by their names in training. Without an adapter they are passed on one by one.
    target
        The folder of the exported model.
    """
    student = config.work.student
    if student.adapter is None:
        return trained
    merged = merge_adapter(
        student_folder,
        target,
        student.adapter,
        trained,
        base=_address(prepared, store),
        trust_remote_code=student.trust_remote_code,
    )
    return ((name, parameter.detach()) for name, parameter in merged.named_parameters())


def _address(prepared: Prepared, store: ObjectStore) -> str:
    """The initial student as peft's users name a model: on the Hub by its name, elsewhere by its URI."""
    uri = prepared.student.uri
    if uri.startswith("hf://"):
        return uri.removeprefix("hf://").partition("@")[0]
    return uri.replace("store://", f"{store.uri}/", 1)
