"""How many epochs a study trains, against a script that makes each configuration from nothing."""

from lib import tables
from lib.study import state


def rows(names: list[str]) -> list[dict]:
    """One row a study and task: epochs of the study, and of the same runs one by one.

    A study trains a dense network once, and every magnitude run starts from it; a script that is called once for
    each configuration trains it again each time. Only runs of `accuracy` count, with the seeds of the study's file.
    """
    made = []
    for name in names:
        plan = tables.planned(state.plan(name))
        for task in tables.tasks(plan):
            part = plan[plan["task"] == task]
            shared = int((part["epochs"] + part["pre_epochs"]).sum())
            alone = int(sum(run["epochs"] + tables.pre_epochs(plan, run) for _, run in part.iterrows()))
            row = {"section": "epochs", "task": task, "form": name, "of": "study", "n": len(part)}
            made.append(row | {"epochs": shared, "epochs_alone": alone, "ratio": alone / shared})
    return made
