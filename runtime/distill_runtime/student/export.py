"""The trained student as a Hugging Face folder that transformers and vLLM load, and the proof that it loads.

Names of weights are those of the model in transformers, as the trainer and its checkpoints have them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from distill_runtime.digests import digest_of_bytes
from distill_runtime.errors import RetryError
from distill_runtime.models import CONFIG
from distill_runtime.student.folder import (
    READABLE,
    SHARD_BYTES,
    ShardWriter,
    copy_companions,
    read_json,
    write_json,
)


@dataclass(frozen=True)
class Probe:
    """What the exported model must say of a short text."""

    ids: list[int]
    """Token ids."""
    logits: torch.Tensor
    """[length, vocabulary], of the trained model in the exported precision."""
    tolerance: float = 1e-3
    """Greatest difference of a logit: the engines' kernels may differ in the order of their sums."""


def export_model(
    folder: Path,
    weights: Iterable[tuple[str, torch.Tensor]],
    source_folder: Path,
    *,
    dtype: torch.dtype,
    card: str,
    trust_remote_code: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, str]:
    """Writes weights, configuration, tokenizer, chat template, generation settings and model card to a new folder.

    Weights are taken one by one: no more than one file of the result is in memory. A head that is tied to the embedding
    is not written twice; one that has come apart from it is written, and the configuration says so.

    Parameters
    ----------
    weights
        Every parameter of the model, each once, in any precision.
    source_folder
        The student before training: its configuration and everything beside the weights.
    dtype
        Precision of the export.
    card
        README.md.

    Returns
    -------
    The digest of each weight as it was written, by its name; for `check_export`.

    Raises
    ------
    ValueError
        The weights are not those of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    expected = _expected(source_folder, trust_remote_code)
    with ShardWriter(folder, shard_bytes) as writer:
        for name, tensor in weights:
            expected.write(writer, name, tensor.to(dtype) if tensor.is_floating_point() else tensor)
        expected.end(writer)
    config = read_json(source_folder / CONFIG)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict):
            part.pop("torch_dtype", None)
            part["dtype"] = str(dtype).removeprefix("torch.")
            if expected.untied:
                part["tie_word_embeddings"] = False
    write_json(folder / CONFIG, config)
    copy_companions(source_folder, folder)
    (folder / "README.md").write_text(card)
    (folder / "README.md").chmod(READABLE)
    return expected.digests


def check_export(
    folder: Path, digests: Mapping[str, str], *, probe: Probe | None = None, trust_remote_code: bool = False
) -> None:
    """Loads an exported folder as a user would, and compares it with what was to be exported.

    Parameters
    ----------
    digests
        What `export_model` returned.
    probe
        A text with the trained model's logits, to be compared too.

    Raises
    ------
    RetryError
        The model that was loaded is not the one that was trained.
    """
    model, report = cast(
        tuple[PreTrainedModel, dict[str, Any]],
        AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", output_loading_info=True, trust_remote_code=trust_remote_code
        ),
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            names = ", ".join(sorted(map(str, report[kind])))
            raise RetryError(f"{folder}: transformers finds {kind.replace('_', ' ')}: {names}.", reason="ExportBroken")
    loaded = {name: digest_of_tensor(parameter) for name, parameter in model.named_parameters()}
    if different := sorted(name for name in {*loaded, *digests} if loaded.get(name) != digests.get(name)):
        raise RetryError(
            f"{folder}: {len(different)} weights are not those that were trained, among them {different[0]}.",
            reason="ExportBroken",
        )
    if probe is not None:
        difference = (probe_logits(model, probe.ids) - probe.logits).abs().max().item()
        if not difference <= probe.tolerance:
            raise RetryError(
                f"{folder}: its logits differ by {difference:.3g} from the trained model's.", reason="ExportBroken"
            )


@torch.no_grad()
def probe_logits(model: nn.Module, ids: list[int]) -> torch.Tensor:
    """Float32 logits [length, vocabulary] of one text, on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    return model(input_ids=torch.tensor([ids], device=device), use_cache=False).logits[0].float().cpu()


def digest_of_tensor(tensor: torch.Tensor) -> str:
    """The sha256 (hex) of a tensor's values, in its precision."""
    flat = tensor.detach().to("cpu").contiguous().flatten()
    return digest_of_bytes(flat.view(torch.uint8).numpy().tobytes())


@dataclass
class _Expected:
    """The model's parameters, and what has come of them."""

    shapes: dict[str, torch.Size]
    tied: dict[str, str]
    """Names that stand for another parameter, and that one's name."""
    digests: dict[str, str] = field(default_factory=dict)
    untied: bool = False
    _waiting: dict[str, torch.Tensor] = field(default_factory=dict)

    def write(self, writer: ShardWriter, name: str, tensor: torch.Tensor) -> None:
        """Writes a parameter; one that may stand for another waits until that one is known."""
        if name in self.tied:
            self._waiting[name] = tensor
            return
        if name not in self.shapes:
            raise ValueError(f"{name} is not a weight of the model")
        if tensor.shape != self.shapes[name]:
            raise ValueError(f"{name} has shape {list(tensor.shape)}, the model's is {list(self.shapes[name])}")
        writer.add(name, tensor)
        self.digests[name] = digest_of_tensor(tensor)

    def end(self, writer: ShardWriter) -> None:
        """Writes what waited and stands for itself. Nothing may be missing."""
        if missing := sorted(self.shapes.keys() - self.digests.keys()):
            raise ValueError(f"{len(missing)} weights are missing, among them {missing[0]}")
        for name, tensor in self._waiting.items():
            digest = digest_of_tensor(tensor)
            if digest != self.digests[self.tied[name]]:
                writer.add(name, tensor)
                self.digests[name] = digest
                self.untied = True


def _expected(folder: Path, trust_remote_code: bool) -> _Expected:
    """The parameters of the model in `folder`, read off a model without weights."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    once = {name: parameter.shape for name, parameter in model.named_parameters()}
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))
    tied = {name: first[id(parameter)] for name, parameter in every.items() if name not in once}
    return _Expected(once, tied)
