"""Vocabularies are compared as maps, not by their size."""

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from distill_runtime.data.vocabulary import compare_vocabularies, load_tokenizer, vocabulary_size
from distill_runtime.errors import UserError
from tests.fixtures.models import tiny_tokenizer


def changed(change: Any) -> PreTrainedTokenizerFast:
    """The tiny tokenizer after `change` to its description."""
    description = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    change(description)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(description)), eos_token="<|im_end|>")


def test_the_same_maps_give_the_greatest_id_plus_one() -> None:
    assert compare_vocabularies(tiny_tokenizer(), tiny_tokenizer(None)) == 396
    assert vocabulary_size(tiny_tokenizer()) == 396


def test_another_end_token_or_template_is_no_other_vocabulary() -> None:
    student = tiny_tokenizer(None)
    student.eos_token = "<|endoftext|>"
    assert compare_vocabularies(tiny_tokenizer(), student) == len(tiny_tokenizer())


def test_an_id_with_another_token_is_named() -> None:
    def swap(description: dict[str, Any]) -> None:
        vocabulary = description["model"]["vocab"]
        vocabulary["x"], vocabulary["y"] = vocabulary["y"], vocabulary["x"]

    first = min(tiny_tokenizer().get_vocab()[token] for token in ("x", "y"))
    with pytest.raises(UserError, match=rf"token {first} is 'x' for the teacher and 'y' for the student"):
        compare_vocabularies(tiny_tokenizer(), changed(swap))


def test_a_token_that_one_alone_has_is_named() -> None:
    student = tiny_tokenizer()
    student.add_tokens(["<extra>"])
    with pytest.raises(
        UserError, match=r"token 396 is nothing for the teacher and '<extra>' for the student.*not supp"
    ):
        compare_vocabularies(tiny_tokenizer(), student)


@pytest.mark.parametrize(
    "change",
    [
        lambda description: description.update(normalizer={"type": "Lowercase"}),
        lambda description: description.update(
            pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}
        ),
        lambda description: description["model"].update(merges=description["model"]["merges"][:20]),
    ],
)
def test_the_same_map_with_other_rules_is_refused(change: Any) -> None:
    with pytest.raises(UserError, match="split text differently"):
        compare_vocabularies(tiny_tokenizer(), changed(change))


def test_a_tokenizer_that_cannot_be_loaded_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "tokenizer.json").write_text("{broken")
    with pytest.raises(UserError) as caught:
        load_tokenizer(tmp_path, uri="file:///models/x", trust_remote_code=False)
    assert str(caught.value).startswith("file:///models/x: its tokenizer can't be loaded")
    assert "\n" not in str(caught.value)
