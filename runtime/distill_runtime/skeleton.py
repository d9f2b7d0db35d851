"""Models without weights, from their configurations alone."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel


def skeleton(folder: Path, *, trust_remote_code: bool = False) -> PreTrainedModel:
    """The model that a folder's `config.json` describes, on the meta device: no weight is read."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
