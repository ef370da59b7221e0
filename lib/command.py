"""What the command lines share: errors in one line, and a polite kill that ends like Ctrl-C."""

import argparse
import signal


class Parser(argparse.ArgumentParser):
    def error(self, message):
        """One line, without the usage that argparse puts before it."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def interruptible() -> None:
    """SIGTERM and SIGINT raise KeyboardInterrupt; a shell starts its background jobs with SIGINT ignored."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
