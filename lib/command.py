"""What the command lines share: errors in one line, and a polite kill that ends like Ctrl-C."""

import argparse
import math
import signal
import time

PATIENCE_S = 30.0  # whoever is interrupted has so long to end what was begun


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def interruptible() -> None:
    """SIGTERM and SIGINT raise KeyboardInterrupt; a shell starts its background jobs with SIGINT ignored.

    Those that follow within PATIENCE_S do nothing: they would leave behind what is just being stopped.
    """
    last = -math.inf

    def interrupt(*_) -> None:
        nonlocal last
        if time.monotonic() - last > PATIENCE_S:
            last = time.monotonic()
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, interrupt)
