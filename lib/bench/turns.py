"""Two programs that take turns: each computes only while the other waits, so a busy moment hits both."""

import contextlib
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from lib import paths


class Program:
    """A program that answers lines of JSON; what else it says goes to the file `log`."""

    def __init__(self, command: list[str], log: Path):
        self.log = log
        with log.open("w", encoding="utf-8") as stream:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": stream}
            self.process = subprocess.Popen(command, cwd=paths.ROOT, text=True, encoding="utf-8", **pipes)

    def send(self, do: str, **values) -> None:
        """Ask for `do` without waiting, for what may happen beside other things; `receive` gives the answer."""
        with contextlib.suppress(BrokenPipeError):  # `receive` says what happened
            self.process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self.process.stdin.flush()

    def receive(self) -> dict:
        """The answer; RuntimeError in one line when the program failed at it or ended."""
        line = self.process.stdout.readline()
        if not line:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise RuntimeError(f"a program of the benchmark ended: {said[-1] if said else 'it said nothing'}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def ask(self, do: str, **values) -> dict:
        self.send(do, **values)
        return self.receive()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):  # closing sends what could not be sent before
            self.process.stdin.close()
        self.process.stdout.close()


def take_turns(turns: dict[str, Callable[[], dict]], rounds: int) -> dict[str, list[dict]]:
    """Call every function once a round, in an order that shifts by one from round to round; answers by name."""
    names, taken = list(turns), {name: [] for name in turns}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(turns[name]())
    return taken
