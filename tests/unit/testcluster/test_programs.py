import re
from pathlib import Path

import pytest

from tests.testcluster.cluster import TWO_POOLS, needed_programs
from tests.testcluster.errors import TestClusterError
from tests.testcluster.programs import HELM_3, HELM_4, KUBERNETES_VARIABLE, all_programs, feature_gates, kubernetes


@pytest.fixture(autouse=True)
def newest_kubernetes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KUBERNETES_VARIABLE, raising=False)


def test_versions_are_those_of_the_modules() -> None:
    assert re.fullmatch(r"v1\.37\.\d+", kubernetes().version)
    assert HELM_3.version.startswith("v3.")
    assert HELM_4.version.startswith("v4.")


def test_kubernetes_programs_tell_their_version() -> None:
    flags = kubernetes().linker_flags()
    assert f"-X k8s.io/component-base/version.gitVersion={kubernetes().version}" in flags
    assert "-X k8s.io/client-go/pkg/version.gitMinor=37" in flags


def test_the_oldest_release_has_on_what_jobs_use_and_the_newest_has_it_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert feature_gates(kubernetes().version) == {}
    monkeypatch.setenv(KUBERNETES_VARIABLE, "1.34")
    assert feature_gates(kubernetes().version) == {"ImageVolume": True}


def test_an_unknown_release_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KUBERNETES_VARIABLE, "1.9")
    with pytest.raises(TestClusterError, match=r"TESTCLUSTER_KUBERNETES is 1\.9, .* choose one of .*1\.37"):
        kubernetes()


def test_programs_of_the_same_sources_have_the_same_digest_and_no_two_programs_have() -> None:
    digests = [program.digest() for program in all_programs().values()]
    assert digests == [program.digest() for program in all_programs().values()]
    assert len(set(digests)) == len(digests)


def test_a_changed_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kubernetes().digest()
    module = tmp_path / "kube"
    module.mkdir()
    for source in (Path(__file__).parents[2] / "testcluster" / "go" / "kube").iterdir():
        (module / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr("tests.testcluster.programs.MODULES", tmp_path)
    assert kubernetes().digest() == before
    (module / "main.go").write_text("package main")
    assert kubernetes().digest() != before


def test_a_control_plane_needs_kubernetes_alone() -> None:
    assert [program.name for program in needed_programs([], network_policies=False)] == ["kube"]
    assert [program.name for program in needed_programs(TWO_POOLS, network_policies=True)] == [
        "kube",
        "pause",
        "coredns",
        "kube-router",
    ]
