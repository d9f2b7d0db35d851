import pytest
import typer

from tests.testcluster.__main__ import parse_node
from tests.testcluster.cluster import NodeRequest


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a=teacher:8", NodeRequest("a", "teacher", 8)),
        ("node-1=student", NodeRequest("node-1", "student", 0)),
        ("a=pool.1_x:0", NodeRequest("a", "pool.1_x", 0)),
    ],
)
def test_a_node_is_read(text: str, node: NodeRequest) -> None:
    assert parse_node(text) == node


@pytest.mark.parametrize("text", ["a", "A=teacher", "=teacher", "a=", "a=teacher:many", "a=teacher:1:2"])
def test_what_is_no_node_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="write NAME=POOL or NAME=POOL:GPUS"):
        parse_node(text)
