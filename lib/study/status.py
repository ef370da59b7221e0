"""What each run of a study is at this moment, read from the folder of its runs by any process on any host."""

from collections import Counter

from lib import runs
from lib.files import read_known
from lib.study import attempts, jobs, judgement, state

STATES = ("done", "running", "failed", "lost", "waiting")


def now(planned: dict) -> list[dict]:
    """`rows`, with what SLURM knows where it was given runs of the study."""
    if not jobs.folder(planned["study"]).is_dir():
        return rows(planned)
    return rows(planned, judgement.queued(planned))


def rows(planned: dict, queued: dict[str, dict] | None = None) -> list[dict]:
    """A row a planned run, in the plan's order: `run`, `state` (of STATES), `attempt`, `where`, `detail`.

    `detail` is the headline of a finished run, how far a running one is, why another failed, and what a waiting one
    waits for. `queued` is what an engine knows: run -> {"state": "waiting", "lost" or "failed", "detail"}, of runs that
    it was given and that are not under way. A run is lost if its last attempt ended without a word. What waits for a
    failed run has failed too.
    """
    found = {}
    for record in attempts.under_way(planned["study"]):
        if record["alive"] or not found.get(record["run"], {}).get("alive"):
            found[record["run"]] = record
    failures = Counter(one["run"] for one in attempts.tries(planned["study"]))
    table: dict[str, dict] = {}
    for run in planned["runs"]:  # sources come before what builds on them
        row = _row(planned, run, found.get(run["id"]), (queued or {}).get(run["id"]), failures)
        failed = [source for source in run["sources"] if table.get(source, {}).get("state") == "failed"]
        if failed and row["state"] == "waiting":
            row |= {"state": "failed", "detail": f"not started: its source {failed[0]} failed"}
        table[run["id"]] = row
    return list(table.values())


def _row(planned: dict, run: dict, record: dict | None, queued: dict | None, failures: Counter) -> dict:
    made, tried = state.of(planned, run), failures[run["id"]]
    row = {"run": run["id"], "state": made, "attempt": tried or "", "where": ""}
    if made == "done":
        return row | _finished(planned, run)
    row |= {"attempt": record["number"], "where": attempts.where(record)} if record else {}
    if queued:
        same = made == "failed" and queued["detail"] == state.reason(planned, run)  # what SLURM says is of that attempt
        return row | (_place(planned, run) if same else {}) | queued
    if record and record["alive"]:
        return row | {"state": "running", "detail": record["progress"] or "started"}
    if record:
        return row | {"state": "lost", "detail": attempts.lost(record)}
    if made == "failed":
        return row | _place(planned, run) | {"detail": state.reason(planned, run)}
    before = [source for source in run["sources"] if state.of(planned, {"id": source}) != "done"]
    more = f" and {len(before) - 1} more" if len(before) > 1 else ""
    return row | {"detail": f"after {before[0]}{more}" if before else ""}


def _finished(planned: dict, run: dict) -> dict:
    place = _place(planned, run)
    metrics = read_known(state.folder(planned) / run["id"] / runs.METRICS, wall_s=int | float)
    if metrics is None:
        return place | {"detail": f"its {runs.METRICS} is damaged: delete its folder and run the study again"}
    top1 = metrics.get("top1_pct")
    said = f"top-1 {top1:.2f} %, " if isinstance(top1, int | float) else ""
    return place | {"detail": f"{said}{metrics['wall_s']:.1f} s"}


def _place(planned: dict, run: dict) -> dict:
    """Where the published attempt was made."""
    record = attempts.read(state.folder(planned) / run["id"])
    return {"attempt": record["number"], "where": attempts.where(record)} if record else {}


def counts(table: list[dict]) -> str:
    """`3 done, 1 running, 1 failed, 0 waiting`; running and lost only where there are any."""
    number = Counter(row["state"] for row in table)
    return ", ".join(f"{number[name]} {name}" for name in STATES if number[name] or name not in ("running", "lost"))
