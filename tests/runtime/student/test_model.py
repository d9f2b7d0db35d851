from pathlib import Path

import pytest
import torch
from torch import nn

from distill_runtime.contract.sections import Training
from distill_runtime.errors import UserError
from distill_runtime.student.model import build_model, read_config
from tests.fixtures.models import save_tiny_model


def build(folder: Path) -> nn.Module:
    config = read_config(folder, tied=False, trust_remote_code=False)
    training = Training(zero_stage=0)
    return build_model(folder, config, training, dtype=torch.float32, settings={}, trust_remote_code=False)


def test_dropout_is_off_so_that_two_forward_passes_agree(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "dropping", "phi", layers=2, resid_pdrop=0.5, attention_dropout=0.5)
    model = build(folder).train()
    ids = torch.arange(4, 20)[None]
    assert torch.equal(model(ids).logits, model(ids).logits)


def test_a_mixture_of_experts_is_refused_in_one_sentence(tmp_path: Path) -> None:
    folder = save_tiny_model(
        tmp_path / "experts", "qwen3_moe", layers=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    )
    with pytest.raises(UserError, match=r"student: qwen3_moe is a mixture of experts \(num_experts: 4\)"):
        build(folder)
