"""The teacher on transformers, for architectures that vLLM is not proven for: slower, the same states."""

import logging
from pathlib import Path

import torch
from transformers import AutoModel, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from distill_runtime.errors import RetryError, UserError
from distill_runtime.prepared import ResolvedPrecision
from distill_runtime.teacher.engine import TeacherEngine


class TransformersEngine(TeacherEngine):
    """The body of the model (AutoModel): its last hidden state is the one behind the final norm.

    Parameters
    ----------
    folder
        The teacher's checkpoint; `architectures.check_engine` says whether its states are the right ones.
    dtype
        Precision of the forward pass and of the states.
    gpus
        1 runs on the GPU, 0 on the processor.
    max_batch_tokens
        Tokens of one forward pass, padding included; a longer sequence is read alone.

    Raises
    ------
    UserError
        The checkpoint or the number of GPUs doesn't fit.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: ResolvedPrecision,
        gpus: int,
        max_batch_tokens: int,
        trust_remote_code: bool = False,
    ) -> None:
        self._device = _device(gpus)
        self._max_batch_tokens = max_batch_tokens
        model = _load(folder, getattr(torch, dtype), trust_remote_code=trust_remote_code)
        self._model = model.to(self._device).eval()  # pyright: ignore[reportArgumentType]
        self._hidden_size = int(model.config.get_text_config().hidden_size)

    @torch.no_grad()
    def hidden_states(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        """States of every position, [length, hidden_size] for each sequence, on the CPU, in the order asked.

        Raises
        ------
        RetryError
            The model answered with other rows than it was asked for.
        """
        states: dict[int, torch.Tensor] = {}
        for batch in token_batches([len(ids) for ids in sequences], self._max_batch_tokens):
            for number, rows in zip(batch, self._forward([sequences[n] for n in batch]), strict=True):
                states[number] = rows
        return [states[number] for number in range(len(sequences))]

    def _forward(self, sequences: list[list[int]]) -> list[torch.Tensor]:
        lengths = [len(ids) for ids in sequences]
        width = max(lengths)
        # Padded on the right: under causal attention no position sees what comes behind it, and the mask keeps even
        # layers that look elsewhere (recurrent ones, routers) from it. Which id is repeated there doesn't matter.
        ids = torch.tensor([row + row[-1:] * (width - len(row)) for row in sequences], device=self._device)
        mask = None
        if min(lengths) < width:
            mask = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long().to(self._device)
        output = self._model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        wanted = (len(sequences), width, self._hidden_size)
        if tuple(output.shape) != wanted:
            raise RetryError(
                f"transformers answered with states of shape {tuple(output.shape)}, wanted {wanted}.",
                reason="WrongAnswer",
            )
        return [output[row, :length].to(device="cpu", copy=True) for row, length in enumerate(lengths)]

    def close(self) -> None:
        """Frees the model."""
        if hasattr(self, "_model"):
            del self._model
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _load(folder: Path, dtype: torch.dtype, *, trust_remote_code: bool) -> PreTrainedModel:
    # Its report lists the output head as unexpected, which is how a body is loaded; what is missing is checked below.
    logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)
    disable_progress_bar()
    try:
        model, loaded = AutoModel.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"transformers can't load the teacher in {folder}: {error}", reason="BadModel") from error
    missing = sorted(loaded["missing_keys"])
    if missing:
        # transformers would go on with random weights in their place.
        raise UserError(
            f"{folder} lacks {len(missing)} of the teacher's tensors, first {missing[0]}: fetch the model again.",
            reason="BadModel",
        )
    return model


def token_batches(lengths: list[int], max_tokens: int) -> list[list[int]]:
    """Numbers of the sequences of each batch: longest first, neighbours in length together, at most `max_tokens` tokens
    with padding (one sequence alone may have more)."""
    batches: list[list[int]] = []
    width = 0
    for number in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
        if batches and (len(batches[-1]) + 1) * width <= max_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
            width = lengths[number]
    return batches


def _device(gpus: int) -> torch.device:
    if gpus > 1:
        raise UserError(
            f"teacher.gpus is {gpus}, but teacher.engine transformers runs on one GPU: set teacher.gpus to 1.",
            reason="TooManyGpus",
        )
    if gpus == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(
            "teacher.gpus is 1, but there is no GPU here: set teacher.gpus to 0 to run on the processor.",
            reason="NoGpu",
        )
    return torch.device("cuda")
