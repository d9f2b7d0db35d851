"""What jobs of teams share: the model, the data, all that happens."""

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.jobs.team import HELD_OUT_ROWS, QUESTIONS, TRAIN_ROWS, Team
from tests.cluster.platform import Platform
from tests.fixtures.api_server import ApiServer
from tests.fixtures.api_watch import World
from tests.fixtures.models import save_tiny_model
from tests.fixtures.watched_job import RESOURCES
from tests.runtime.end_to_end.local_job import rows


def lines(first: int, count: int) -> bytes:
    """Rows as JSON Lines; those of other places are other rows."""
    return "".join(json.dumps(row) + "\n" for row in rows(first + count)[first:]).encode()


@pytest.fixture(scope="session")
def stocked(platform: Platform) -> Platform:
    """The platform, with model and data in its store."""
    folder = platform.cluster.root / "inputs" / "teacher"
    # vLLM on the processor takes heads from 32 on.
    save_tiny_model(folder, hidden=256, layers=6, head_dim=64, max_position_embeddings=1024)
    platform.upload({"teacher": folder}, "models")
    files: dict[str, Path | bytes] = {
        "train.jsonl": lines(0, TRAIN_ROWS),
        "heldout.jsonl": lines(TRAIN_ROWS, HELD_OUT_ROWS),
        "questions.jsonl": lines(TRAIN_ROWS + HELD_OUT_ROWS, QUESTIONS),
    }
    platform.upload(files, "data")
    return platform


@pytest.fixture(scope="session")
def api(platform: Platform) -> ApiServer:
    """The API server, with all rights."""
    return ApiServer(platform.cluster.control_plane.kubeconfig)


@pytest.fixture(scope="session")
def world(api: ApiServer) -> Iterator[World]:
    """All that happens."""
    with World(api, RESOURCES) as world:
        yield world


@pytest.fixture(scope="module")
def make_team(stocked: Platform, api: ApiServer, world: World) -> Iterator[Callable[[str], Team]]:
    """Makes namespaces that jobs can run in; they are removed after the module."""
    made: list[str] = []

    def make(name: str) -> Team:
        namespace = stocked.make_namespace(f"{name}-{secrets.token_hex(3)}")
        made.append(namespace)
        return Team(stocked, api, world, namespace)

    yield make
    for namespace in made:
        stocked.remove_namespace(namespace)


@pytest.fixture(scope="module")
def team(make_team: Callable[[str], Team]) -> Team:
    """One team."""
    return make_team("team")
