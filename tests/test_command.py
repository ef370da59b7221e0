"""What signals do to a command."""

import contextlib
import os
import signal
import threading

import pytest

from lib import command

NUMBERS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def interrupted(monkeypatch):
    """Signals as in a command that has called `interruptible`; yields the clock that it looks at, in a list."""
    now = [100.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    before = {number: signal.getsignal(number) for number in NUMBERS}
    command.interruptible()
    yield now
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_interrupts_and_one_pressed_twice_does_so_once(interrupted, number):
    with pytest.raises(KeyboardInterrupt):
        send(number)
    send(number)
    interrupted[0] += command.AGAIN_S + 1
    with pytest.raises(KeyboardInterrupt):
        send(number)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_ends_is_not_interrupted(interrupted, number):
    with command.uninterrupted():
        send(number)
    with pytest.raises(KeyboardInterrupt):
        send(number)


@pytest.mark.parametrize("number", NUMBERS)
def test_what_begins_is_noted_before_it_is_interrupted(interrupted, number):
    begun = []
    with pytest.raises(KeyboardInterrupt), command.noting():  # noqa: PT012
        send(number)
        begun.append(1)
    assert begun == [1]


def test_an_error_there_is_that_error(interrupted):
    with pytest.raises(ValueError, match="no"), command.noting():
        raise ValueError("no")
    assert signal.getsignal(signal.SIGINT) is signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_other_threads_leave_signals_alone(interrupted):
    seen = []

    def look() -> None:
        with command.uninterrupted(), command.noting():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


@pytest.mark.parametrize("within", [command.uninterrupted, command.noting])
@pytest.mark.parametrize("moment", range(4))
def test_signals_in_the_moment_of_change_leave_the_usual_handlers(interrupted, monkeypatch, within, moment):
    usual = {number: signal.getsignal(number) for number in NUMBERS}
    real, calls = signal.signal, []

    def change(number, handler):
        before = real(number, handler)
        calls.append(number)
        if len(calls) == moment + 1:
            for each in NUMBERS:
                send(each)
        return before

    monkeypatch.setattr(signal, "signal", change)
    with contextlib.suppress(KeyboardInterrupt), within():
        pass
    monkeypatch.undo()
    assert {number: signal.getsignal(number) for number in NUMBERS} == usual
