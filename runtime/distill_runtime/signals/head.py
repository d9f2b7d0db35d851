"""The output head: what makes logits of a last hidden state. torch is only named here: whoever asks whether a head is
there need not wait for its import."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch


class HeadDescription(BaseModel):
    """How a model makes logits of its last normed hidden state.

    logits = softcap(scale · (hidden · weightᵀ + bias)), where softcap(x) = c · tanh(x / c).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden_size: int
    """Width of the hidden state."""
    padded_vocabulary: int
    """Rows of the weight in the checkpoint."""
    vocabulary: int
    """Rows that count: ids at and above it are padding."""
    scale: float = 1.0
    """Multiplies the logits (Cohere's logit_scale, Granite's 1 / logits_scaling)."""
    softcap: float | None = None
    """Gemma's final_logit_softcapping."""
    bias: bool = False
    """Is there a bias?"""
    tied: bool = False
    """Is the weight the input embedding's?"""


@dataclass(frozen=True)
class OutputHead:
    """A head's weights, already cut to the real vocabulary."""

    description: HeadDescription
    weight: "torch.Tensor"
    """[vocabulary, hidden_size]"""
    bias: "torch.Tensor | None" = None
    """[vocabulary]"""

    def on(self, device: "torch.device") -> "OutputHead":
        """The head, on this device."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)

    def logits(self, hidden: "torch.Tensor") -> "torch.Tensor":
        """Float32 logits [rows, vocabulary] of hidden states [rows, hidden_size]. For tests and a few rows: the
        objective never holds so many."""
        logits = hidden.float() @ self.weight.float().T
        if self.bias is not None:
            logits = logits + self.bias.float()
        logits = logits * self.description.scale
        if self.description.softcap is not None:
            logits = self.description.softcap * (logits / self.description.softcap).tanh()
        return logits
