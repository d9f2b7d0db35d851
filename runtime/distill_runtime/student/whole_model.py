"""All weights of the trained student: trained ones are in a checkpoint, the rest in the initial student's folder."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

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
        The trained weights, by their names in training. Where all are trained they are passed on one by one.
    target
        The folder of the exported model.
    """
    student = config.work.student
    if student.adapter is not None:
        merged = merge_adapter(
            student_folder,
            target,
            student.adapter,
            trained,
            base=_address(prepared, store),
            trust_remote_code=student.trust_remote_code,
        )
        return ((name, parameter.detach()) for name, parameter in merged.named_parameters())
    return _with_frozen(trained, student_folder, student.trust_remote_code) if student.freeze else trained


def _with_frozen(
    trained: Iterable[tuple[str, torch.Tensor]], student_folder: Path, trust_remote_code: bool
) -> Iterator[tuple[str, torch.Tensor]]:
    """The trained weights, and then the others as they were before training."""
    seen: set[str] = set()
    for name, tensor in trained:
        seen.add(name)
        yield name, tensor
    model = cast(
        PreTrainedModel,
        AutoModelForCausalLM.from_pretrained(student_folder, dtype="auto", trust_remote_code=trust_remote_code),
    )
    yield from ((name, parameter.detach()) for name, parameter in model.named_parameters() if name not in seen)


def _address(prepared: Prepared, store: ObjectStore) -> str:
    """The initial student as peft's users name a model: on the Hub by its name, elsewhere by its URI."""
    uri = prepared.student.uri
    if uri.startswith("hf://"):
        return uri.removeprefix("hf://").partition("@")[0]
    return uri.replace("store://", f"{store.uri}/", 1)
