"""The objective as plain formulas over full logits: what `fused_linear` must equal, in loss and in gradient.

Readable before fast: every function holds [targets, vocabulary]. For tests, notebooks and benchmarks.
"""

import torch

from distill_runtime.contract.sections import Objective
from distill_runtime.signals.head import HeadDescription


def logits_of(
    hidden: torch.Tensor, weight: torch.Tensor, head: HeadDescription, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Logits [targets, vocabulary] of states [targets, hidden_size] under a head [padded_vocabulary, hidden_size].

    softcap(scale · (hidden · weightᵀ + bias)) over the real vocabulary, in the precision of the inputs: rows of the
    weight at and above `head.vocabulary` are padding and get no logit.
    """
    logits = hidden @ weight[: head.vocabulary].T
    if bias is not None:
        logits = logits + bias[: head.vocabulary]
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def forward_kl(student_logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """T² · Σ over targets of KL(p || q), with p = softmax(teacher / T) and q = softmax(student / T), in nats.

    The distillation loss of Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015,
    arXiv:1503.02531), as a divergence (their cross entropy less the teacher's entropy, which has no gradient). The
    factor T² keeps the size of its gradient, T · (q − p), comparable between temperatures (their section 2.1).

    At least 0, and 0 where both distributions are equal; not bounded above. Unchanged by a constant that is added to
    all logits of a row. As T grows it tends to half the squared difference of the centred logits, divided by the
    vocabulary.

    Parameters
    ----------
    student_logits, teacher_logits
        [targets, vocabulary], both over the same ids.
    """
    student = torch.log_softmax(student_logits / temperature, dim=-1)
    teacher = torch.log_softmax(teacher_logits / temperature, dim=-1)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum()


def cross_entropy(student_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Σ over targets of −log softmax(student)[target], in nats; always at temperature 1. At least 0, not bounded above.

    Parameters
    ----------
    student_logits
        [targets, vocabulary]
    targets
        [targets] int64, the ids that follow.
    """
    return -torch.log_softmax(student_logits, dim=-1).gather(1, targets[:, None]).sum()


def objective_total(
    student_logits: torch.Tensor, teacher_logits: torch.Tensor | None, targets: torch.Tensor, objective: Objective
) -> torch.Tensor:
    """The weighted sum of divergence and cross entropy over all targets: a sum, never a mean.

    Raises
    ------
    ValueError
        The divergence is weighted, and there are no logits of the teacher.
    """
    total = student_logits.new_zeros(())
    if objective.distillation_weight > 0:
        if teacher_logits is None:
            raise ValueError("objective.distillationWeight is above 0, which needs the teacher's logits")
        divergence = forward_kl(student_logits, teacher_logits, objective.temperature)
        total = total + objective.distillation_weight * divergence
    if objective.cross_entropy_weight > 0:
        total = total + objective.cross_entropy_weight * cross_entropy(student_logits, targets)
    return total
