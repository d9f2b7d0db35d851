from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from distill_runtime.contract.sections import Training
from distill_runtime.data.sequence import Sequence
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.student.distributed import Ranks
from distill_runtime.student.engine import StudentEngine
from distill_runtime.student.model import build_model, read_config
from distill_runtime.student.self_checks import check_packing
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_trained_model_may_be_packed_in_either_precision(dtype: torch.dtype, smollm2_folder: Path) -> None:
    """Trained models have a few elements that are many times as large as the others."""
    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=dtype).eval()

    class Engine:
        def evaluating(self, on: bool) -> None:
            pass

        def __call__(self, ask: str, inputs: dict[str, Any]) -> torch.Tensor:
            assert ask == "states"
            return model.base_model(**inputs, use_cache=False).last_hidden_state

    random = np.random.default_rng(0)
    sequences = [
        Sequence(ids=random.integers(0, 40_000, n).astype(np.int32), target_mask=np.arange(n) > 0) for n in (60, 50, 40)
    ]
    precision: ResolvedPrecision = "float32" if dtype == torch.float32 else "bfloat16"
    ranks = Ranks(rank=0, world=1, device=torch.device("cpu"))
    check_packing(cast(StudentEngine, Engine()), sequences, ranks, precision, varlen=False)
