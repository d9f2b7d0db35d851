"""Reading a model over sequences with hooks in it, on the processor: how layers and neurons are measured."""

import math
from collections.abc import Iterable
from collections.abc import Sequence as Many
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM, PreTrainedModel

from distill_runtime.errors import UserError
from distill_runtime.student.layers import FIELD


def load_measured(folder: Path, *, dtype: torch.dtype, trust_remote_code: bool = False) -> PreTrainedModel:
    """The whole model in `folder`, to be read in this precision."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, trust_remote_code=trust_remote_code)
    return cast(PreTrainedModel, model).eval()


@torch.no_grad()
def read_hooked(model: PreTrainedModel, hooks: Many[RemovableHandle], sequences: Many[NDArray[np.int32]]) -> None:
    """Reads each sequence of token ids alone; the hooks, which see it, are taken out at the end."""
    try:
        for ids in sequences:
            model.base_model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()


def check_finite(measured: Iterable[float | torch.Tensor], model: PreTrainedModel) -> None:
    """Makes sure that what was measured of a teacher's layers says something.

    Raises
    ------
    UserError
        Something isn't finite.
    """
    if not all(math.isfinite(value) for value in measured):
        raise UserError(
            f"{FIELD}: the states of the teacher in {model.name_or_path} are not finite on the training data: its "
            "weights are damaged, or too large for its precision. Choose layers by their numbers.",
            reason="NotFinite",
        )
