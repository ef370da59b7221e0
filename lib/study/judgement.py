"""What the runs of a study are that a cluster was given, for its driver and for `status`; quick to import.

What a run is stands on the shared folder first: its result, the record of the attempt that executes it, and what its
task said at its end. SLURM is asked about the rest only.
"""

from lib.files import listed
from lib.study import attempts, jobs, squeue, state
from lib.study.healing import may_heal

SILENT = "SLURM does not answer here"
OVER = {"state": "COMPLETED"}  # of a task that SLURM no longer knows


def queued(planned: dict) -> dict[str, dict]:
    """What SLURM and its tasks say of the runs that have not ended well and are not under way, for `status.rows`."""
    told = ("waiting", "lost", "failed")
    return {
        run: {"state": now["state"], "detail": now["detail"]}
        for run, now in judged(planned, [run for run in planned["runs"] if state.of(planned, run) != "done"]).items()
        if now["state"] in told
    }


def clear(study: str) -> None:
    """`attempts.clear`, but for the runs that SLURM may still execute, however silent: a task can be suspended."""
    attempts.clear(study, spare=_all_held(study))


def _all_held(study: str) -> set[str]:
    """The runs of any plan of the study that SLURM may still execute."""
    given = [path.stem for path in listed(jobs.folder(study), "*.json")]
    records = jobs.records(study, [run for run in given if state.of({"study": study}, {"id": run}) != "done"])
    said = squeue.look(records)
    return {run for run, record in records.items() if _held(_known(record, said), said)}


def judged(planned: dict, chosen: list[dict]) -> dict[str, dict]:
    """Run -> {"state", "held", ...}; state is one of

    - done, running: as its folder and the record of its attempt say;
    - waiting: SLURM has it, or its task is between two of its runs;
    - lost, failed: it ended, `heals` says whether another try may help, and `free` that nothing executes it;
    - new: nobody has it; with the same two, and `detail`, if a task had it and did not begin it.

    `detail` is why, in one line. `held` says whether SLURM may still execute it: its task is not over, or SLURM does
    not answer. Only a run that comes to its end with a task that SLURM lists has that task's `record`.
    """
    study = planned["study"]
    records = jobs.records(study, [run["id"] for run in chosen])
    said = squeue.look(records)  # before the folders: what has ended has written everything by then
    mine: dict[str, list[dict]] = {}
    busy = set()  # tasks that execute one of their runs
    for one in attempts.under_way(study):
        mine.setdefault(one["run"], []).append(one)
        if one["alive"] and isinstance(one.get("slurm"), str):
            busy.add(one["slurm"])
    found = {}
    for identifier, run in ((run["id"], run) for run in chosen):
        record = records.get(identifier)
        if record:
            record = _known(record, said)
        end = jobs.ended(study, identifier, record) if record else None
        now = said["tasks"].get(record["task"]) if record and said else None
        now = now and now | {"busy": record["task"] in busy}
        held = record is not None and _held(record, said)
        if record and not end:
            end = _own_failure(planned, run, record, held and now is not None)
        verdict = _judge(state.of(planned, run), record, end, mine.get(identifier, []), now, held)
        found[identifier] = verdict | {"held": held}
    return found


def _held(record: dict, said: dict | None) -> bool:
    """Whether SLURM may still execute the task of the record."""
    return said is None or said["tasks"].get(record["task"], OVER)["state"] not in squeue.FINAL


def _own_failure(planned: dict, run: dict, record: dict, listed: bool) -> dict | None:
    """What the folder of the run says of a failure that is not older than the record; None if SLURM goes on with it.

    Of a task that died before it could say so, or of an attempt that came after the task, in another engine.
    """
    if listed or state.of(planned, run) != "failed":
        return None
    made = attempts.read(state.folder(planned) / run["id"]) or {}
    same = record["task"] is not None and made.get("slurm") == record["task"]
    newer = str(made.get("started_utc", "")) > str(record.get("submitted_utc", ""))
    return {"error": state.reason(planned, run)} if same or newer else None


def _judge(made: str, record: dict | None, end: dict | None, mine: list[dict], now: dict | None, held: bool) -> dict:
    if made == "done":
        return {"state": "done"}
    alive = next((one for one in reversed(mine) if one["alive"]), None)
    if record is None:
        return {"state": "running"} if alive else {"state": "new"}
    task = record["task"]
    listed = {"record": record} if held and now else {}
    own = alive and task is not None and alive.get("slurm") == task
    here = alive and attempts.here(alive)  # our own system knows better than SLURM
    if alive and (here or held or not own):
        return {"state": "running"} | (listed if own else {})
    if end and end["error"] and not end["error"].startswith(("not started", "stopped")):
        return _ended("failed", end["error"], may_heal(end["error"]), alive)
    if end:
        return {"state": "running"} if alive else _ended("new", end["error"], True, None)
    if held:
        return {"state": "waiting", "detail": _waits(task, now, mine)} | listed
    if task is None:  # its driver died before it had handed it over
        return {"state": "new"}
    if now and now["state"] == "CANCELLED":
        return _ended("failed", f"cancelled (SLURM {task})", False, alive)
    return _ended("lost", _lost(task, now, mine), True, alive)


def _known(record: dict, said: dict | None) -> dict:
    """The record with the task that it had not been told."""
    return record | {"task": record["task"] or _found(record, said)}


def _found(record: dict, said: dict | None) -> str | None:
    """The task of a record whose driver died before it could write it down."""
    job = said["names"].get(record["name"]) if said else None
    if job is None:
        return None
    task = f"{job}_{record['index']}"
    return task if task in said["tasks"] else job


def _ended(kind: str, detail: str, heals: bool, alive: dict | None) -> dict:
    return {"state": kind, "detail": detail, "heals": heals, "free": alive is None}


def _waits(task: str | None, now: dict | None, mine: list[dict]) -> str:
    if now is None:
        return f"SLURM {task}; {SILENT}" if task else SILENT
    if now["state"] == "RUNNING" and mine:
        return f"attempt {mine[-1]['number']} ended without a word, SLURM {task} goes on"
    begins = f"{'after others of its task' if now.get('busy') else 'begins'} on {now['where']}"
    reason = f", {now['reason']}" if now["reason"] not in ("", "None") else ""
    words = {"RUNNING": begins, "PENDING": f"in the queue{reason}"}
    return f"SLURM {task}: {words.get(now['state'], now['state'])}"


def _lost(task: str | None, now: dict | None, mine: list[dict]) -> str:
    why = f"SLURM {task} {now['state'] if now else 'is not there any more'}"
    if now and now["reason"] not in ("", "None"):
        why += f" {now['reason']}"
    return f"{attempts.lost(mine[-1])}; {why}" if mine else f"LostRun: {why}"
