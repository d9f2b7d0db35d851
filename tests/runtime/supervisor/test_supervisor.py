"""A supervisor as a real process, with every way in which its role can end."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from distill_runtime.contract import environment
from distill_runtime.contract.outcome import ExitCode, Outcome
from tests.runtime.supervisor.container import (
    SAVES,
    SAY,
    SECONDS,
    SLEEP,
    STUBBORN,
    SUPERVISE,
    Container,
    alive,
    wait_for,
)


def test_a_finished_role_ends_0_with_its_facts(container: Container) -> None:
    outcome = container.run('say(0, "Finished", facts={"rows": 7})')
    assert outcome.code is ExitCode.FINISHED
    assert outcome.facts == {"rows": 7}


@pytest.mark.parametrize(("code", "reason"), [(65, "BadRow"), (75, "StoreUnreachable")])
def test_an_error_keeps_its_code_and_its_sentence(container: Container, code: int, reason: str) -> None:
    outcome = container.run(f'say({code}, "{reason}"); sys.exit({code})')
    assert (outcome.code, outcome.reason, outcome.message) == (code, reason, f"{reason}.")


def test_the_words_of_ranks_are_weighed_though_torchrun_ends_1(container: Container) -> None:
    outcome = container.run(
        'say(65, "BadRow", "outcome-1.json"); say(75, "Crashed", "outcome-0.json"); say(143, "Saved"); sys.exit(1)'
    )
    assert outcome.reason == "BadRow"


def test_a_second_command_runs_only_behind_a_finished_one_and_the_facts_add_up(container: Container) -> None:
    first, second = 'say(0, "Finished", facts={"a": 1})', 'say(0, "Finished", facts={"b": 2})'
    assert container.run(first, second).facts == {"a": 1, "b": 2}
    outcome = container.run('say(75, "Bad")', 'here("second"); ' + second)
    assert outcome.reason == "Bad"
    assert not (container.state / "second").exists()


def test_sigterm_reaches_the_role_once_and_its_checkpoint_ends_143(container: Container) -> None:
    process = container.start(SAVES)
    container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process).reason == "Checkpointed"
    assert (container.state / "signals").read_text() == "TERM\n"


def test_sigterm_during_the_first_command_leaves_the_second_out(container: Container) -> None:
    finishes = (
        'signal.signal(signal.SIGTERM, lambda *_: (say(0, "Finished"), os._exit(0))); here()\n'
        "while True: time.sleep(0.05)"
    )
    process = container.start(finishes, 'here("second")')
    container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    outcome = container.end_of(process)
    assert (outcome.code, outcome.reason) == (143, "Terminated")
    assert not (container.state / "second").exists()


def test_a_role_that_dies_of_the_sigterm_had_nothing_to_save(container: Container) -> None:
    process = container.start(SLEEP)
    container.wait_for_role()
    process.send_signal(signal.SIGINT)
    outcome = container.end_of(process)
    assert (outcome.code, outcome.reason) == (143, "Terminated")


def test_a_role_that_ignores_sigterm_is_killed_after_its_grace(container: Container) -> None:
    process = container.start(STUBBORN, **{environment.GRACE_SECONDS: "0.7"})
    pid = container.wait_for_role()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    outcome = container.end_of(process)
    assert time.monotonic() - begun >= 0.7
    assert (outcome.code, outcome.reason) == (75, "GraceExceeded")
    assert not alive(pid)


def test_a_second_sigterm_kills_at_once(container: Container) -> None:
    process = container.start(
        f'signal.signal(signal.SIGTERM, lambda *_: here("asked")); {SLEEP}', **{environment.GRACE_SECONDS: "3600"}
    )
    container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    container.wait_for_role("asked")
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process).reason == "GraceExceeded"


def test_a_role_killed_from_outside_may_have_run_out_of_memory(container: Container) -> None:
    process = container.start(SLEEP)
    os.kill(container.wait_for_role(), signal.SIGKILL)
    outcome = container.end_of(process)
    assert (outcome.code, outcome.reason) == (75, "Killed")
    assert "out of memory" in outcome.message


def test_a_silent_end_is_no_success(container: Container) -> None:
    outcome = container.run("pass")
    assert (outcome.code, outcome.reason) == (75, "NoOutcome")
    assert container.run("sys.exit(3)").message.count("exit code 3") == 1


@pytest.mark.parametrize("session", [True, False])
def test_grandchildren_do_not_outlive_the_role(container: Container, session: bool) -> None:
    grandchild = (
        f"child = subprocess.Popen(['sleep', '120'], start_new_session={session}); "
        '(folder / "child").write_text(str(child.pid)); say(0, "Finished"); os._exit(0)'
    )
    assert container.run(grandchild).code is ExitCode.FINISHED
    assert not alive(int((container.state / "child").read_text()))


def test_grandchildren_that_ignore_sigterm_are_killed_with_the_role(container: Container) -> None:
    nested = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(120)"
    program = (
        f"child = subprocess.Popen([sys.executable, '-c', {nested!r}], start_new_session=True, stdout=-1); "
        f'child.stdout.readline(); (folder / "child").write_text(str(child.pid)); {STUBBORN}'
    )
    process = container.start(program, **{environment.GRACE_SECONDS: "0.2"})
    role = container.wait_for_role()
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process).reason == "GraceExceeded"
    assert not alive(role)
    assert not alive(int((container.state / "child").read_text()))


def test_an_outcome_of_an_earlier_start_is_not_taken_for_this_ones(container: Container) -> None:
    container.run('say(0, "Finished"); say(65, "BadRow", "outcome-3.json"); sys.exit(65)')
    (container.state / "progress.json").write_text("{}")
    assert container.run("pass").reason == "NoOutcome"
    assert not (container.state / "progress.json").exists()


def test_a_container_restarted_in_place_repeats_its_word_and_waits(container: Container) -> None:
    refuse = {environment.RESTART_IN_PLACE: "refuse"}
    first = container.run('say(65, "BadRow"); sys.exit(65)', **refuse)
    (container.folder / "termination-log").unlink()
    process = container.start('here("worked")', **refuse)
    wait_for((container.folder / "termination-log").exists, "the repeated message")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert container.end_of(process) == first
    assert not (container.state / "worked").exists()


def test_a_container_restarted_in_place_after_a_kill_says_so(container: Container) -> None:
    refuse = {environment.RESTART_IN_PLACE: "refuse"}
    killed = container.start(SLEEP, **refuse)
    role = container.wait_for_role()
    killed.kill()
    killed.communicate(timeout=SECONDS)
    wait_for(lambda: not alive(role), "the role's end with its supervisor")
    process = container.start('here("worked")', **refuse)
    wait_for((container.folder / "termination-log").exists, "the message")
    process.send_signal(signal.SIGTERM)
    outcome = container.end_of(process)
    assert (outcome.code, outcome.reason) == (75, "Killed")
    assert not (container.state / "worked").exists()


def test_without_the_flag_a_container_is_started_again(container: Container) -> None:
    container.run('say(75, "Bad"); sys.exit(75)')
    assert container.run('say(0, "Finished")').code is ExitCode.FINISHED


def test_the_death_of_the_command_line_ends_the_role_with_a_checkpoint(container: Container) -> None:
    parent = (
        "import subprocess, sys, os, time, json\n"
        "os.environ['DISTILL_PARENT'] = str(os.getpid())\n"
        "subprocess.Popen([sys.executable, '-c', *sys.argv[1:]], start_new_session=True)\n"
        "time.sleep(120)"
    )
    commands = json.dumps([["-c", SAY + SAVES]])
    command = [sys.executable, "-c", parent, SUPERVISE, "student", "300", commands]
    process = subprocess.Popen(command, env=container.environ())
    role = container.wait_for_role()
    process.kill()
    process.wait(SECONDS)
    wait_for((container.state / "outcome.json").exists, "the last word")
    wait_for(lambda: not alive(role), "the end of the role")
    outcome = Outcome.model_validate_json((container.state / "outcome.json").read_bytes())
    assert outcome.reason == "Checkpointed"


def test_a_missing_run_configuration_is_the_users_error(container: Container) -> None:
    outcome = container.run("pass", **{environment.RUN_CONFIG: str(container.folder / "absent.json")})
    assert outcome.code is ExitCode.USER_ERROR
    assert "absent.json" in outcome.message


def test_an_unknown_role_is_told_the_known_ones() -> None:
    command = [sys.executable, "-m", "distill_runtime.supervisor", "cook"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ended.returncode == 64
    assert "prepare|teacher|student|evaluate" in ended.stderr
