"""Ctrl-C, once and more often: work ends in order, clean-up ends at all, and by an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments import signals
from experiments.engines import pulumi_cli

ROOT = Path(signals.__file__).parents[1]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in signals.NUMBERS}
    signals.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def press(times: int = 1) -> None:
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0)  # the handler runs


def test_the_first_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()


def test_more_while_it_ends_are_told_and_do_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        press()
    press(signals.GIVE_UP - 1)
    assert "2 more times" in capfd.readouterr().err


def test_clean_up_lasts_until_it_is_given_up() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt):
        press()
    with signals.cleaning():
        press(signals.GIVE_UP - 1)
        reached.append("after two")
    with pytest.raises(KeyboardInterrupt), signals.cleaning():
        press(signals.GIVE_UP)
        reached.append("after three")
    assert reached == ["after two"]


def test_the_first_in_a_clean_up_interrupts_at_its_end() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), signals.cleaning():
        press()
        reached.append("end")
    assert reached == ["end"]


def test_an_engine_is_asked_once_and_not_in_a_clean_up() -> None:
    asked: list[str] = []
    with pytest.raises(KeyboardInterrupt), signals.stopping(lambda: asked.append("work")):
        press(2)
    with signals.cleaning(), signals.stopping(lambda: asked.append("clean-up")):
        press(signals.GIVE_UP - 1)
    assert asked == ["work"]
    with (
        pytest.raises(KeyboardInterrupt),
        signals.cleaning(),
        signals.stopping(lambda: asked.append("given up")),
    ):
        press(signals.GIVE_UP)
    assert asked == ["work", "given up"]


def test_a_failure_of_what_was_asked_to_stop_is_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), signals.stopping(lambda: None):
        press()
        raise ValueError("cancelled")


def test_without_the_command_line_the_handlers_come_and_go() -> None:
    for number in signals.NUMBERS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), signals.stopping(lambda: None):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        press()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL


# A `pulumi` that ends in order at the first SIGINT, and counts them.
PULUMI = """#!/bin/bash
[[ $* == *version ]] && { echo v3.272.0; exit; }
ps -o sid= -p $$ | tr -d ' ' > session
trap 'echo interrupted >> signals' INT
echo ready
for i in $(seq 100); do
  sleep 0.02 & wait $!  # a foreground child would take the signal from its shell at times
  [ -e signals ] && sleep 0.5 && { echo "error: cancelled" >&2; exit 1; }
done
exit 0
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "pulumi"
    program.write_text(PULUMI)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_the_cli_is_out_of_the_terminal_s_reach_and_ends_in_order(fake: Path) -> None:
    program = pulumi_cli.Program({})
    with pytest.raises(KeyboardInterrupt), signals.stopping(program.stop):
        program.run(["up"], str(fake), {}, on_output=lambda _: press(2))
    assert (fake / "signals").read_text().splitlines() == ["interrupted"]
    assert int((fake / "session").read_text()) != os.getsid(0)


def test_the_cli_in_a_clean_up_is_let_end(fake: Path) -> None:
    program = pulumi_cli.Program({})
    with (
        pytest.raises(KeyboardInterrupt),
        signals.cleaning(),
        signals.stopping(program.stop),
    ):
        program.run(["destroy"], str(fake), {}, on_output=lambda _: press(2))
    assert not (fake / "signals").exists()


BUSY = """
import sys, time
from experiments import cli
def work(command):
    try:
        print("ready", flush=True)
        time.sleep(10)
    finally:
        from experiments import signals
        with signals.cleaning():
            time.sleep(0.6)
            print("clean", flush=True)
cli._run = work
cli.main()
"""


@pytest.mark.parametrize("presses", [1, 2, 3, 4, 6, 20])
def test_however_many_the_end_is_130(presses: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(presses):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert ("clean" in out) == (presses <= signals.GIVE_UP)
    assert "Traceback" not in err


# Signals its own group, in a session of its own, while it starts processes; prints how they ended.
HAMMERED = r"""
import os, signal, subprocess, sys
from experiments import signals
signal.signal(signal.SIGINT, lambda *_: None)
hammer = subprocess.Popen(
    [sys.executable, "-c", "import os, signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
     "print(flush=True)\nwhile True: os.kill(0, 2); time.sleep(0.0003)"], stdout=subprocess.PIPE
)
hammer.stdout.readline()
def start():
    return subprocess.Popen(["true"], stdin=subprocess.PIPE, start_new_session=True)
print({signals.apart(start).wait() for _ in range(1000)})
hammer.kill()
"""


def test_a_signal_to_the_group_never_ends_a_process_apart() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HAMMERED],
        cwd=ROOT, start_new_session=True, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "{0}\n", done
