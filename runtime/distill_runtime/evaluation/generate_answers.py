"""The child that generates answers: `python -m distill_runtime.evaluation.generate_answers REQUEST ANSWERS FAILURE`.

REQUEST is a `GenerationRequest`; ANSWERS takes one `GeneratedAnswer` a line as they come; FAILURE takes a
`GenerationFailure` where the user must mend something. See `generation`.
"""

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from distill_runtime.contract.outcome import ExitCode
from distill_runtime.errors import UserError
from distill_runtime.evaluation.generation import (
    GeneratedAnswer,
    GenerationFailure,
    GenerationRequest,
    end_with_parent,
)
from distill_runtime.logs import configure_logging
from distill_runtime.process import write_stacks_when_asked

ANSWERS_BETWEEN_REPORTS = 32
"""Prompts that vLLM gets at a time, at least: progress is seen between them."""
SEQUENCES_AT_A_TIME = 64
"""Most answers that an engine works on at once."""
PADDING = 0
"""Any id will do: padding is masked."""

log = logging.getLogger(__name__)


def main(arguments: list[str]) -> int:
    """Answers the request; returns the exit code."""
    asked, answers, failure = map(Path, arguments)
    configure_logging("evaluate")
    write_stacks_when_asked()
    end_with_parent()
    try:
        request = GenerationRequest.model_validate_json(asked.read_bytes())
        check_request(request)
        with answers.open("w") as file:
            _answer(request, file)
    except UserError as error:
        failure.write_text(GenerationFailure(reason=error.reason, message=str(error)).model_dump_json())
        return ExitCode.USER_ERROR
    return ExitCode.FINISHED


def check_request(request: GenerationRequest) -> None:
    """Checks that the engine can use the GPUs, and that each prompt with its longest answer fits the model.

    Raises
    ------
    UserError
        It can't, or doesn't; the sentence names the example.
    """
    if request.engine == "transformers" and request.gpus > 1:
        raise UserError(
            f"{request.field}.engine is transformers, which runs on one GPU, but the model has "
            f"{request.gpus}: set it to vllm.",
            reason="TooManyGpus",
        )
    config = AutoConfig.from_pretrained(request.model, trust_remote_code=request.trust_remote_code).get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest is None:
        return
    for example, prompt in enumerate(request.prompts):
        if len(prompt) + request.max_new_tokens > longest:
            raise UserError(
                f"{request.field}: the prompt of example {example} has {len(prompt)} tokens, which "
                f"with maxNewTokens {request.max_new_tokens} is more than the {longest} that the model {request.model} "
                f"reads: shorten the prompt or lower maxNewTokens.",
                reason="PromptTooLong",
            )


def _answer(request: GenerationRequest, file: TextIO) -> None:
    tokenizer = AutoTokenizer.from_pretrained(request.model, trust_remote_code=request.trust_remote_code)
    engine = vllm_answers if request.engine == "vllm" else transformers_answers
    for example, ids in engine(request):
        line = GeneratedAnswer(example=example, text=answer_text(tokenizer, ids, request.stop_token_ids))
        file.write(line.model_dump_json() + "\n")
        file.flush()


def answer_text(tokenizer: PreTrainedTokenizerBase, ids: list[int], stop_token_ids: Iterable[int]) -> str:
    """The text of generated ids up to the first stop id, without special tokens and surrounding space."""
    stops = set(stop_token_ids)
    end = next((place for place, token in enumerate(ids) if token in stops), len(ids))
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    assert isinstance(text, str)
    return text.strip()


def vllm_answers(request: GenerationRequest) -> Iterator[tuple[int, list[int]]]:
    """The number of each example and the ids that vLLM generates for it."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    length = max(map(len, request.prompts)) + request.max_new_tokens
    try:
        engine = LLM(
            model=request.model,
            runner="generate",
            dtype=request.dtype,
            tensor_parallel_size=max(1, request.gpus),
            trust_remote_code=request.trust_remote_code,
            # The checkpoint's own sampling defaults (a repetition penalty, say) would not be greedy.
            generation_config="vllm",
            enforce_eager=request.gpus == 0,
            enable_prefix_caching=False,
            max_model_len=length,
            max_num_batched_tokens=max(request.batch_tokens, length),
            max_num_seqs=SEQUENCES_AT_A_TIME,
            disable_log_stats=True,
        )
    except ValueError as error:
        raise UserError(
            f"{request.field}: vLLM can't run {request.model} ({str(error).splitlines()[0]}): set its engine to "
            "transformers.",
            reason="EngineRefused",
        ) from error
    sampling = SamplingParams(
        temperature=0.0,
        max_tokens=request.max_new_tokens,
        stop_token_ids=request.stop_token_ids,
        # Only the given ids stop, with either engine.
        ignore_eos=True,
        detokenize=False,
    )
    at_a_time = max(ANSWERS_BETWEEN_REPORTS, SEQUENCES_AT_A_TIME)
    for first in range(0, len(request.prompts), at_a_time):
        block: list[Any] = [{"prompt_token_ids": ids} for ids in request.prompts[first : first + at_a_time]]
        outputs = engine.generate(block, sampling, use_tqdm=False)
        for example, output in enumerate(outputs, start=first):
            yield example, list(output.outputs[0].token_ids)


def transformers_answers(request: GenerationRequest) -> Iterator[tuple[int, list[int]]]:
    """The number of each example and the ids that transformers generates for it."""
    device = torch.device("cuda" if request.gpus > 0 else "cpu")
    model: Any = AutoModelForCausalLM.from_pretrained(
        request.model, dtype=getattr(torch, request.dtype), trust_remote_code=request.trust_remote_code
    )
    model.to(device).eval()
    # What the checkpoint's own settings say (sampling, a repetition penalty) must not fill the gaps.
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=request.stop_token_ids or None,
        pad_token_id=PADDING,
    )
    for batch in _batches(request):
        width = max(len(request.prompts[example]) for example in batch)
        ids = torch.full((len(batch), width), PADDING, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, example in enumerate(batch):
            prompt = torch.tensor(request.prompts[example])
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        with torch.inference_mode():
            generated = model.generate(ids.to(device), attention_mask=mask.to(device))
        for example, row in zip(batch, generated[:, width:].tolist(), strict=True):
            yield example, row


def _batches(request: GenerationRequest) -> Iterator[list[int]]:
    """Examples of like length together, as many as the tokens allow."""
    batch: list[int] = []
    for example in sorted(range(len(request.prompts)), key=lambda number: len(request.prompts[number])):
        tokens = (len(batch) + 1) * (len(request.prompts[example]) + request.max_new_tokens)
        if batch and (tokens > request.batch_tokens or len(batch) == SEQUENCES_AT_A_TIME):
            yield batch
            batch = []
        batch.append(example)
    if batch:
        yield batch


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Engines leave threads and child processes behind that would hold the interpreter's own end up.
    os._exit(code)
