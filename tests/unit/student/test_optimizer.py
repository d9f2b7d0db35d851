import pytest
import torch
from torch import nn

from distill_runtime.contract.sections import Optimizer
from distill_runtime.student.optimizer import STATES, make_optimizer, parameter_groups


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(4, 4).requires_grad_(False)


def test_only_matrices_decay_and_a_tied_weight_is_there_once() -> None:
    model = TwoLayers()
    matrices, vectors = parameter_groups(model.named_parameters(), 0.1)
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert [id(p) for p in matrices["params"]] == [id(model.embedding.weight)]
    assert {id(p) for p in vectors["params"]} == {id(model.norm.weight), id(model.norm.bias), id(model.head.bias)}


def test_a_divided_parameter_counts_with_its_true_shape() -> None:
    parameter = nn.Parameter(torch.empty(0))
    parameter.ds_shape = torch.Size([3, 4])  # type: ignore[attr-defined] - as ZeRO-3 does
    (group,) = parameter_groups([("weight", parameter)], 0.1)
    assert group["weight_decay"] == 0.1


@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_the_optimizer_keeps_the_states_that_checkpoints_save(kind: str) -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    spec = Optimizer.model_validate({"kind": kind, "learning_rate": 0.5, "weight_decay": 0.1})
    optimizer = make_optimizer(parameter_groups([("weight", weight)], spec.weight_decay), spec)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    tensors = {name for name, value in optimizer.state[weight].items() if torch.is_tensor(value) and value.ndim}
    assert tensors == set(STATES[kind])


def test_weight_decay_of_sgd_is_decoupled() -> None:
    weight = nn.Parameter(torch.full((2, 2), 3.0))
    spec = Optimizer(kind="sgd", learning_rate=0.5, weight_decay=0.1)
    optimizer = make_optimizer(parameter_groups([("weight", weight)], spec.weight_decay), spec)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.allclose(weight, torch.full((2, 2), 3.0 - 0.5 * (1.0 + 0.1 * 3.0)))
