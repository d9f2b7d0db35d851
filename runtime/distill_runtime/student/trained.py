"""Which of the student's weights are trained: all, an adapter's, or all but some that are frozen.

A frozen weight gets no gradient, no optimizer state and no place in a checkpoint.
"""

import logging
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill_runtime.contract.sections import Student
from distill_runtime.errors import UserError
from distill_runtime.signals.head_source import describe_head
from distill_runtime.student.adapter import add_adapter
from distill_runtime.student.model import read_config

FREEZE = "spec.student.freeze"
"""Where the user asked for it."""

log = logging.getLogger(__name__)


def choose_trained(model: PreTrainedModel, student: Student, *, zero3: dict[str, Any] | None = None) -> None:
    """Marks what is trained (`requires_grad`), and adds it where it isn't there yet.

    Parameters
    ----------
    zero3
        DeepSpeed's settings where the model's weights are divided between the ranks already.

    Raises
    ------
    UserError
        The model has no such parts; the sentence says which it has.
    """
    if student.adapter is not None:
        add_adapter(model, student.adapter, zero3=zero3)
    if student.freeze:
        freeze(model, student.freeze)


def freeze(model: PreTrainedModel, parts: list[str]) -> None:
    """Freezes parameters: `embeddings`, `outputHead`, and those whose names match a pattern.

    Raises
    ------
    UserError
        A part is none of the model's, is one tensor with another that should be trained, or nothing is left to train.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    frozen: set[str] = set()
    for part in parts:
        found = _names_of(part, model, list(named))
        if not found:
            raise UserError(
                f"{FREEZE}: no weight of the student matches {part}: its weights are called {_examples(list(named))}.",
                reason="BadFreeze",
            )
        frozen.update(found)
    _check_tied(named, frozen)
    for name in frozen:
        named[name].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in named.values()):
        raise UserError(
            f"{FREEZE}: all weights of the student are frozen: nothing is left to train.", reason="BadFreeze"
        )
    distinct = {id(named[name]): named[name] for name in frozen}
    count = sum(getattr(parameter, "ds_numel", parameter.numel()) for parameter in distinct.values())
    log.info("%d weights in %d tensors are frozen", count, len(distinct))


def _names_of(part: str, model: PreTrainedModel, names: list[str]) -> list[str]:
    module = {"embeddings": model.get_input_embeddings, "outputHead": model.get_output_embeddings}.get(part)
    if module is None:
        return [name for name in names if fnmatchcase(name, part)]
    return [name for name in names if name.startswith(f"{_path_of(model, cast(nn.Module, module()))}.")]


def _path_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    return next(path for path, module in model.named_modules() if module is wanted)


def _examples(names: list[str]) -> str:
    """The first and the last few names: enough to see how they are built."""
    return ", ".join(names if len(names) <= 8 else [*names[:4], "…", *names[-4:]])


def _check_tied(named: dict[str, nn.Parameter], frozen: set[str]) -> None:
    for name in sorted(frozen):
        for other, parameter in named.items():
            if other not in frozen and parameter is named[name]:
                raise UserError(
                    f"{FREEZE}: {name} and {other} are one tensor in this student, whose head is tied to its embedding "
                    "(tie_word_embeddings): freeze both (embeddings and outputHead) or neither.",
                    reason="BadFreeze",
                )


def check_trained(folder: Path, student: Student, *, vocabulary: int, trust_remote_code: bool) -> None:
    """Finds out without weights whether `choose_trained` can work on the model in `folder`.

    Raises
    ------
    UserError
        As `choose_trained`.
    """
    tied = describe_head(folder, vocabulary).tied
    config = read_config(folder, tied=tied, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        model.tie_weights()
        choose_trained(cast(PreTrainedModel, model), student)
