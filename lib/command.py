"""What the command lines share: errors in one line, and a polite kill that ends like Ctrl-C."""

import argparse
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

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

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Inside the `with`, for ending what was begun, SIGTERM and SIGINT do nothing; only the main thread can say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
