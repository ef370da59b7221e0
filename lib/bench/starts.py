"""Execute a study, one run at a time, and print when each of its runs was started.

`python -m lib.bench.starts NAME`: one line of JSON, run id -> seconds since the epoch, in the order of the runs.
"""

import json
import sys
import time

from lib.study import state
from lib.study.execute import Watch, run_study


def main(name: str) -> int:
    starts: dict[str, float] = {}
    planned = state.plan(name)
    watch = Watch()
    watch.started = lambda run: starts.__setitem__(run["id"], time.time())
    errors = run_study(planned, [None], watch)
    for run, error in errors.items():
        print(f"{run}: {error}", file=sys.stderr)
    print(json.dumps(starts))
    return int(bool(errors))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
