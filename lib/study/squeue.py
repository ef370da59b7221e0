"""What SLURM says of tasks: one `squeue` for all of them, and `sacct` for those that it no longer knows.

Accounting may be off, and either program may be missing or slow: then less is known, and nothing waits for it.
"""

import os
import re
import subprocess

SQUEUE_S, SACCT_S = 10.0, 5.0  # a controller under load answers late
# every task by itself, in whatever state and partition
SQUEUE = ["squeue", "--noheader", "--array", "--states=all", "--all", "--format=%F|%K|%T|%j|%N|%r"]
# A task in none of these may still run; SLURM has more of them with each version, so what is unknown is not final.
FINAL = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
# What sacct says of a start that was followed by another one. It counts only where squeue knows no newer one.
BEFORE = {"REQUEUED"}


def look(records: dict[str, dict]) -> dict | None:
    """What SLURM says of the tasks in `records` (see `lib.study.jobs`); None where it does not answer.

    `tasks` is task -> {"state", "where", "reason"}, `names` is name of a job -> its number.
    """
    names = sorted({record["name"] for record in records.values()})
    if not names:
        return {"tasks": {}, "names": {}}
    answer = _output([*SQUEUE, f"--name={','.join(names)}"], SQUEUE_S)
    if answer is None:
        return None
    found = parse(answer)
    absent = {record["task"] for record in records.values() if record["task"] not in found["tasks"]} - {None}
    if absent:
        found["tasks"] |= {task: said for task, said in _accounted(absent).items() if task in absent}
    return found


def going() -> set[str] | None:
    """The tasks of this user that are not at their end; None where SLURM does not answer."""
    answer = _output([*SQUEUE, f"--user={os.getuid()}"], SQUEUE_S)
    if answer is None:
        return None
    return {task for task, said in parse(answer)["tasks"].items() if said["state"] not in FINAL}


def parse(answer: str) -> dict:
    """`look`'s answer from the lines of squeue. Of two lines on one task, the one that is not final counts."""
    tasks, names = {}, {}
    for line in answer.splitlines():
        parts = line.strip().split("|", 5)
        if len(parts) != 6:
            continue
        job, index, state, name, node, reason = parts
        task = f"{job}_{index}" if index.isdecimal() else job
        names[name] = job
        if task not in tasks or tasks[task]["state"] in FINAL:
            tasks[task] = {"state": state, "where": node, "reason": reason}
    return {"tasks": tasks, "names": names}


def array_most(most: int) -> int:
    """How many tasks an array of this cluster may have, `most` at most; `most` where SLURM does not say."""
    answer = _output(["scontrol", "show", "config"], SQUEUE_S) or ""
    told = re.search(r"^MaxArraySize\s*=\s*(\d+)", answer, re.MULTILINE)
    return max(1, min(most, int(told[1]))) if told else most


def _accounted(tasks: set[str]) -> dict[str, dict]:
    numbers = sorted({task.partition("_")[0] for task in tasks})
    command = ["sacct", "-X", "-n", "-P", "-o", "JobID,State,ExitCode,NodeList", "-j", ",".join(numbers)]
    return parse_sacct(_output(command, SACCT_S) or "")


def parse_sacct(answer: str) -> dict[str, dict]:
    """task -> {"state", "where", "reason"} from the lines `JobID|State|ExitCode|NodeList` of sacct."""
    tasks = {}
    for line in answer.splitlines():
        parts = line.strip().split("|")
        if len(parts) != 4 or not parts[1]:
            continue
        task, state, code, node = parts
        state = state.split()[0].rstrip("+")  # CANCELLED by 1000
        reason = "" if code in ("", "0:0") else f"exit {code}"
        tasks[task] = {"state": "NODE_FAIL" if state in BEFORE else state, "where": node, "reason": reason}
    return tasks


def _output(command: list[str], seconds: float) -> str | None:
    """What it prints; None if it is not there, fails, or takes longer."""
    # a person's own settings choose what they like to see: SQUEUE_PARTITION, SQUEUE_STATES and others
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SACCT_"))}
    how = {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, "env": environment}
    try:
        done = subprocess.run(command, timeout=seconds, **how)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
