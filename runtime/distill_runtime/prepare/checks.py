"""What is refused before a GPU is asked for, beyond data and tokenizers."""

import json
from pathlib import Path

from distill_runtime.errors import UserError
from distill_runtime.signals.row_format import RowFormat


def longest_context(folder: Path) -> int | None:
    """Tokens that the model in `folder` can read at most, as far as its `config.json` says; None where it doesn't."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config")
    section = text if isinstance(text, dict) else config
    positions = section.get("max_position_embeddings") or section.get("n_positions")
    if not isinstance(positions, int):
        return None
    factors = [
        rope.get("factor")
        for name in ("rope_scaling", "rope_parameters")
        if isinstance(rope := section.get(name), dict)
    ]
    # Some configurations give the length before scaling, some after it: never refuse what might be read.
    return max([positions, *(int(positions * factor) for factor in factors if isinstance(factor, int | float))])


def check_context(folder: Path, *, who: str, uri: str, longest: int, where: str, remedy: str) -> None:
    """Refuses sequences that are longer than the model can read.

    Parameters
    ----------
    who
        `teacher` or `student`.
    longest
        Tokens of the longest sequence.
    where
        What that sequence belongs to.
    remedy
        What to do about it; `{limit}` stands for the tokens that the model reads.

    Raises
    ------
    UserError
        The model reads fewer tokens.
    """
    limit = longest_context(folder)
    if limit is not None and longest > limit:
        raise UserError(
            f"the longest sequence of {where} has {longest} tokens, but the {who} {uri} reads at most {limit}: "
            f"{remedy.format(limit=limit)}.",
            reason="ContextTooShort",
        )


def check_row(row: RowFormat) -> None:
    """Refuses a top-k of more ids than there are.

    Raises
    ------
    UserError
        `signal.k` is above the vocabulary.
    """
    if row.kind == "topk" and row.vocabulary is not None and row.width > row.vocabulary:
        raise UserError(
            f"signal.k is {row.width}, but the vocabulary has {row.vocabulary} ids: set signal.k to {row.vocabulary} "
            "or less.",
            reason="SignalUnsupported",
        )
