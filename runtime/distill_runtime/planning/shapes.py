"""Shapes of models from their configurations: no weight is read."""

from pathlib import Path
from typing import Any

import torch

from distill_runtime.contract.sections import Student
from distill_runtime.planning.memory import Shape
from distill_runtime.skeleton import skeleton
from distill_runtime.student.trained import choose_trained


def read_shape(folder: Path, *, trust_remote_code: bool = False, student: Student | None = None) -> Shape:
    """The shape of the model in a folder. `student`: what of it is trained; without, nothing is."""
    model = skeleton(folder, trust_remote_code=trust_remote_code)
    if student is not None:
        with torch.device("meta"):
            choose_trained(model, student)
    text: Any = model.config.get_text_config()
    heads = int(text.num_attention_heads)
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(p.numel() for p in model.parameters() if p.requires_grad) if student is not None else 0,
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        heads=heads,
        key_value_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_size=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        vocabulary=int(text.vocab_size),
    )
