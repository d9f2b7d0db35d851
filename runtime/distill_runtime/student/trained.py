"""Which of the student's weights are trained: all, or an adapter's."""

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill_runtime.contract.sections import Student
from distill_runtime.student.adapter import add_adapter


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


def check_trained(folder: Path, student: Student, *, trust_remote_code: bool) -> None:
    """Finds out without weights whether `choose_trained` can work on the model in `folder`.

    Raises
    ------
    UserError
        As `choose_trained`.
    """
    if student.adapter is None:
        return
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        model.tie_weights()
        choose_trained(cast(PreTrainedModel, model), student)
