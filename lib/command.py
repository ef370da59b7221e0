"""What the command lines share: errors in one line, and a polite kill that ends like Ctrl-C."""

import argparse
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN_S = 3.0  # a person who presses twice means the same


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def interruptible() -> None:
    """SIGTERM and SIGINT raise KeyboardInterrupt; a shell starts its background jobs with SIGINT ignored.

    Those that follow within AGAIN_S do nothing: whoever is interrupted may not have come to `uninterrupted` yet.
    """
    last = -math.inf

    def interrupt(*_) -> None:
        nonlocal last
        if time.monotonic() - last > AGAIN_S:
            last = time.monotonic()
            raise KeyboardInterrupt

    _set(dict.fromkeys(SIGNALS, interrupt))


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside the `with`, for ending what was begun, SIGTERM and SIGINT do nothing; only the main thread can say so."""
    with _handled_by(signal.SIG_IGN):
        yield


@contextmanager
def noting() -> Iterator[None]:
    """Inside the `with`, for beginning something and noting that it has begun, SIGTERM and SIGINT wait for its end."""
    came = []
    with _handled_by(lambda number, _: came.append(number)):
        yield
    for number in came[:1]:
        signal.raise_signal(number)


@contextmanager
def _handled_by(handler) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        _set(dict.fromkeys(SIGNALS, handler))
        yield
    finally:
        try:
            _set(before)
        finally:  # the first of two that is set may interrupt before the second is
            _set(before)


def _set(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
