"""What a container answers over HTTP while its role starts, works, is busy, is restarted and ends."""

import json
import signal
import socket
import statistics
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import Progress
from distill_runtime.progress import ProgressReporter
from distill_runtime.supervisor.vitals import SILENCE_SECONDS, Vitals
from tests.runtime.supervisor.container import SLEEP, Container, wait_for

REFUSE = {environment.RESTART_IN_PLACE: "refuse"}


def test_progress_is_the_roles_newest_report(container: Container) -> None:
    container.start(
        'here("silent")\n'
        'while not (folder / "go").exists(): time.sleep(0.02)\n'
        f'report("train", done=3, total=8, loss=0.5); {SLEEP}'
    )
    container.wait_for_role("silent")
    assert container.get("/progress") == (204, "")
    (container.state / "go").touch()
    progress = Progress.model_validate_json(container.wait_for_answer("/progress", 200))
    assert (progress.stage, progress.done, progress.total, progress.loss) == ("train", 3, 8, 0.5)
    assert "heldOutLoss" in json.loads(container.get("/progress")[1])


def test_metrics_are_what_prometheus_reads(container: Container) -> None:
    container.start(
        'report("train", done=3, total=8, unit="steps", loss=0.5, heldOutLoss=0.75, tokensPerSecond=1200.5, '
        f"waitFraction=0.25, packingEfficiency=0.875); {SLEEP}"
    )
    container.wait_for_role()
    found = {
        sample.name: (sample.value, sample.labels)
        for family in text_string_to_metric_families(container.get("/metrics")[1])
        for sample in family.samples
    }
    role = {"role": "student"}
    assert found["distill_role_up"] == (1, role)
    assert found["distill_stage"] == (1, {**role, "stage": "train"})
    assert found["distill_progress_done"] == (3, {**role, "unit": "steps"})
    assert found["distill_progress_total"] == (8, {**role, "unit": "steps"})
    assert found["distill_loss"] == (0.5, role)
    assert found["distill_held_out_loss"] == (0.75, role)
    assert found["distill_tokens_per_second"] == (1200.5, role)
    assert found["distill_wait_fraction"] == (0.25, role)
    assert found["distill_packing_efficiency"] == (0.875, role)
    assert abs(found["distill_progress_time_seconds"][0] - time.time()) < 60


def test_metrics_leave_out_what_is_not_known(container: Container) -> None:
    container.start(SLEEP)
    container.wait_for_role()
    assert "distill_role_up" in container.get("/metrics")[1]
    assert "distill_loss" not in container.get("/metrics")[1]


@pytest.mark.parametrize("role", ["prepare", "student", "evaluate"])
def test_most_roles_have_started_when_their_process_runs(container: Container, role: str) -> None:
    container.role = role
    container.start(SLEEP)
    container.wait_for_role()
    assert container.get("/startup")[0] == 200
    assert container.get("/healthz")[0] == 200


def test_a_teacher_has_started_once_its_canary_has_passed_and_stays_so(container: Container) -> None:
    container.role = "teacher"
    container.start(
        'for stage in ("load", "canary", "signals", "load"):\n'
        "    report(stage, role='teacher'); here(stage)\n"
        '    while not (folder / f"behind-{stage}").exists(): time.sleep(0.02)\n'
        "    (folder / stage).unlink()"
    )
    for stage, status in (("load", 503), ("canary", 503), ("signals", 200), ("load", 200)):
        container.wait_for_role(stage)
        assert container.get("/startup")[0] == status, stage
        assert container.get("/healthz")[0] == 200
        (container.state / f"behind-{stage}").touch()
        wait_for(lambda stage=stage: not (container.state / stage).exists(), f"the end of {stage}")
        if stage != "signals":
            (container.state / f"behind-{stage}").unlink()


def test_a_teacher_that_scores_itself_behind_its_signals_has_started(container: Container) -> None:
    container.role = "teacher"
    container.start('report("load", role="teacher"); say(0, "Finished")', f'report("load", role="teacher"); {SLEEP}')
    container.wait_for_role()
    assert container.get("/startup")[0] == 200


def test_a_container_restarted_in_place_answers_its_probes_and_says_that_it_is_over(container: Container) -> None:
    container.role = "teacher"
    container.run('report("load", role="teacher"); say(65, "BadRow"); sys.exit(65)', **REFUSE)
    process = container.start(SLEEP, **REFUSE)
    container.wait_for_answer("/startup", 200)
    assert container.get("/healthz")[0] == 200
    progress = Progress.model_validate_json(container.get("/progress")[1])
    assert (progress.role, progress.stage, progress.message) == ("teacher", "ended", "BadRow.")
    assert 'distill_role_up{role="teacher"} 0.0' in container.get("/metrics")[1]
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process).reason == "BadRow"


def test_a_role_that_takes_all_processors_does_not_hold_answers_up(container: Container) -> None:
    busy = (
        'children = [subprocess.Popen(["timeout", "20", "sh", "-c", "while :; do :; done"]) for _ in range(8)]; '
        + SLEEP
    )
    container.start(busy)
    container.wait_for_role()
    taken: list[float] = []
    for _ in range(20):
        begun = time.monotonic()
        assert container.get("/healthz")[0] == 200
        taken.append(time.monotonic() - begun)
    assert statistics.median(taken) < 1.0


def test_answers_come_while_the_role_saves_its_work(container: Container) -> None:
    process = container.start(
        "signal.signal(signal.SIGTERM, lambda *_: here('saving')); here()\n"
        'while not (folder / "saved").exists(): time.sleep(0.02)\n'
        'say(143, "Checkpointed"); sys.exit(143)'
    )
    container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    container.wait_for_role("saving")
    assert container.get("/healthz")[0] == 200
    (container.state / "saved").touch()
    assert container.end_of(process).reason == "Checkpointed"


def test_both_address_families_are_answered(container: Container) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    container.start(SLEEP)
    container.wait_for_role()
    assert container.get("/healthz", host="[::1]")[0] == 200


def test_other_paths_are_told_the_known_ones(container: Container) -> None:
    container.start(SLEEP)
    container.wait_for_role()
    status, body = container.get("/")
    assert status == 404
    assert "/progress" in body


def test_without_a_port_nothing_is_served_and_the_role_runs(container: Container) -> None:
    assert container.run('say(0, "Finished")', **{environment.PROGRESS_PORT: ""}).reason == "Finished"


def test_a_port_that_is_taken_is_told(container: Container) -> None:
    with socket.create_server(("0.0.0.0", container.port)):
        outcome = container.run('here("worked")')
    assert (outcome.code, outcome.reason) == (75, "PortTaken")
    assert str(container.port) in outcome.message
    assert not (container.state / "worked").exists()


def test_many_clients_that_say_nothing_do_not_hold_others_up(container: Container) -> None:
    container.start(SLEEP)
    container.wait_for_role()
    silent = [socket.create_connection(("127.0.0.1", container.port)) for _ in range(32)]
    try:
        assert container.get("/healthz")[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_loop_that_does_not_turn_is_not_healthy(tmp_path: Path) -> None:
    now = [0.0]
    vitals = Vitals("student", tmp_path, clock=lambda: now[0])
    assert vitals.healthy
    now[0] += SILENCE_SECONDS
    assert not vitals.healthy
    vitals.turned()
    assert vitals.healthy


def test_a_teacher_that_waits_is_up_until_it_loads_its_model_after_all(tmp_path: Path) -> None:
    """The kubelet's startup probe has passed by then; the readiness that the operator sees follows."""
    vitals, progress = Vitals("teacher", tmp_path), ProgressReporter("teacher", tmp_path)
    assert not vitals.started
    for stage, started in (("load", False), ("wait", True), ("load", False), ("canary", False), ("signals", True)):
        progress.update(stage=stage)
        assert vitals.started == started, stage
    progress.update(stage="load")
    assert vitals.started, "the model of its evaluation"
