import inspect
from typing import Any, get_args

import pytest
import torch
from torch import nn

from distill_runtime.contract.sections import OPTIMIZER_ARGUMENTS, Optimizer, OptimizerArguments, TorchOptimizer
from distill_runtime.errors import UserError
from distill_runtime.student.optimizer import States, make_optimizer, optimizer_states, parameter_groups


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


def torch_optimizer(name: str, **arguments: Any) -> Optimizer:
    return Optimizer.model_validate({"kind": "torch", "torch": {"name": name, "arguments": arguments}})


@pytest.mark.parametrize(
    ("spec", "tensors", "scalars"),
    [
        (Optimizer(), ("exp_avg", "exp_avg_sq"), ("step",)),
        (Optimizer(kind="sgd"), (), ()),
        (torch_optimizer("SGD"), (), ()),
        (torch_optimizer("SGD", momentum=0.9), ("momentum_buffer",), ()),
        (torch_optimizer("Adam", amsgrad=True), ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"), ("step",)),
        (torch_optimizer("NAdam"), ("exp_avg", "exp_avg_sq"), ("step", "mu_product")),
        (torch_optimizer("RMSprop"), ("square_avg",), ("step",)),
        (torch_optimizer("Adadelta"), ("square_avg", "acc_delta"), ("step",)),
    ],
)
def test_what_an_optimizer_keeps_is_found_out(
    spec: Optimizer, tensors: tuple[str, ...], scalars: tuple[str, ...]
) -> None:
    found = optimizer_states(spec)
    assert (set(found.tensors), set(found.scalars)) == (set(tensors), set(scalars))


@pytest.mark.parametrize("name", get_args(TorchOptimizer.model_fields["name"].annotation))
def test_every_optimizer_has_the_arguments_that_may_be_given(name: str) -> None:
    wanted = {argument for argument, optimizers in OPTIMIZER_ARGUMENTS.items() if name in optimizers}
    assert wanted <= inspect.signature(getattr(torch.optim, name)).parameters.keys()
    assert OPTIMIZER_ARGUMENTS.keys() == OptimizerArguments.model_fields.keys()
    assert optimizer_states(torch_optimizer(name)).tensors or name == "SGD"


def test_arguments_reach_torch_and_what_it_refuses_is_told() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    spec = torch_optimizer("RMSprop", momentum=0.5, alpha=0.25, centered=True)
    optimizer = make_optimizer(parameter_groups([("weight", weight)], 0.1), spec)
    assert isinstance(optimizer, torch.optim.RMSprop)
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["alpha"], group["centered"], group["weight_decay"]) == (0.5, 0.25, True, 0.1)
    with pytest.raises(UserError, match=r"optimizer\.torch: torch refuses the arguments of SGD: Nesterov momentum"):
        optimizer_states(torch_optimizer("SGD", nesterov=True))


def test_a_state_that_is_no_part_of_a_weight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "Adadelta", torch.optim.Adafactor)
    with pytest.raises(UserError, match="Adafactor keeps row_var, which checkpoints can't carry"):
        optimizer_states(torch_optimizer("Adadelta"))
    assert isinstance(optimizer_states(Optimizer()), States)


def test_weight_decay_of_sgd_is_decoupled() -> None:
    weight = nn.Parameter(torch.full((2, 2), 3.0))
    spec = Optimizer(kind="sgd", learning_rate=0.5, weight_decay=0.1)
    optimizer = make_optimizer(parameter_groups([("weight", weight)], spec.weight_decay), spec)
    weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.allclose(weight, torch.full((2, 2), 3.0 - 0.5 * (1.0 + 0.1 * 3.0)))
