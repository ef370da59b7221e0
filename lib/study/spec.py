"""From a study file to the list of its runs, checked to the last name before anything is executed."""

import math
from collections import Counter
from fnmatch import fnmatch
from itertools import product
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Discriminator, Field, NonNegativeInt, Tag, ValidationError

from lib import parameters, paths, runs
from lib.shares import TO_DENSITY
from lib.study.cluster import Cluster

ALLOWED = {
    "compression": "0 or more", "ratio": "1 or more", "density": "a density in (0, 1]", "sparsity": "a share in [0, 1)",
}  # fmt: skip
PLURAL = {"compressions": "compression", "ratios": "ratio", "sparsities": "sparsity"}

# A run that builds on another sees the same images and the same network ...
SAME = ("data", "model", "seed", "train_images", "validation_images")
# ... and one that only looks at it (it trains nothing) also the same pruning.
PRUNING = ("pruner", "density", "rounds", "schedule", "scope")


MINIMUM = Field(min_length=1)
SEED_MOST = 2**32 - 1  # of numpy and scikit-learn; torch takes more


class Block(BaseModel, extra="forbid"):
    """Runs of one notebook: the product of `grid`, less what matches an entry of `exclude`, each with `fixed`."""

    notebook: str
    fixed: dict[str, Any] = {}
    grid: dict[str, list[Any]] = {}
    exclude: list[dict[str, Any]] = []
    seeds: Literal["all", "first"] = "all"
    exclusive: bool = False


class Chain(BaseModel, extra="forbid"):
    """Runs one after the other, each the source of the next: a stage is `notebook: {its parameters}`.

    `chain` names it, in the ids of its runs and in the report; `fixed` goes to every stage that has the parameter. The
    first stage starts from `source`, an earlier run, if there is one.
    """

    chain: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_+.-]*$")]
    source: str = ""
    fixed: dict[str, Any] = {}
    stages: Annotated[list[Annotated[dict[str, dict[str, Any] | None], Field(min_length=1, max_length=1)]], MINIMUM]
    seeds: Literal["all", "first"] = "all"
    exclusive: bool = False


def _kind(block: Any) -> str:
    return "chain" if isinstance(block, Chain) or (isinstance(block, dict) and "chain" in block) else "block"


def _summary(notebook: str) -> str:
    """The name of a notebook that makes a report: one with the parameters `study` and `results`."""
    lacking = [name for name in ("study", "results") if name not in parameters.declared(notebook)]
    if lacking:
        raise ValueError(f"summary: notebook {notebook!r} has no parameter {lacking[0]!r}, so it makes no report")
    return notebook


class Study(BaseModel, extra="forbid"):
    """A study file. `fixed` goes to every block whose notebook has the parameter; `seeds` to all that have one.

    `summary` names the notebook that makes the report, `cluster` says what its runs need of one.
    """

    title: str
    question: str
    summary: Annotated[str, AfterValidator(_summary)] = "summary"
    fixed: dict[str, Any] = {}
    seeds: Annotated[list[Annotated[NonNegativeInt, Field(le=SEED_MOST)]], MINIMUM] = [1]
    cluster: Cluster | None = None
    blocks: Annotated[
        list[Annotated[Annotated[Block, Tag("block")] | Annotated[Chain, Tag("chain")], Discriminator(_kind)]], MINIMUM
    ]


def read(name: str) -> Study:
    """The study `name`; ValueError in one line for an unknown or malformed one."""
    if name in (paths.SCRATCH, paths.REFERENCE):
        raise ValueError(f"a study may not be called {name!r}: that folder of runs is taken")
    paths.inside("study", name)
    path = paths.study(name)
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except UnicodeDecodeError:
        raise ValueError(f"study {name}: {path.name} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        raise ValueError(f"study {name}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        keys = {"": Study.model_fields, "cluster": Cluster.model_fields}
        raise ValueError(f"study {name}: {parameters.one_line(error, keys)}") from None


def word(study: Study) -> str:
    """How the study mostly says how much is kept, a key of TO_DENSITY; its report uses the same word."""
    written: Counter = Counter()
    for block in study.blocks:
        grid = getattr(block, "grid", {})
        for name, value in {**study.fixed, **block.fixed, **grid}.items():
            several = name in PLURAL or name in grid
            if PLURAL.get(name, name) in TO_DENSITY:
                written[PLURAL.get(name, name)] += len(value) if several and isinstance(value, list) else 1
    return written.most_common(1)[0][0] if written else "compression"


def expand(name: str, study: Study, seeds: list[int] | None = None) -> list[dict]:
    """All runs in the order of the file, as dicts `id`, `notebook`, `parameters`, `sources`, `exclusive`.

    `parameters` are complete and checked; `sources` are the ids this run needs finished. A run of a chain has `chain`,
    its name, and `stage`, from 1 on. ValueError in one line for any name, type, range or reference that cannot work.
    """
    seeds = study.seeds if seeds is None else seeds
    if twice := [seed for seed, count in Counter(seeds).items() if count > 1]:
        raise ValueError(f"study {name}: seeds: received {twice[0]} twice, each may be named once")
    _check_shared(name, study)
    found: dict[str, dict] = {}
    for block in study.blocks:
        try:
            _check_chain(block)
            for made in _linked(block, study, seeds) if isinstance(block, Chain) else _separate(block, study, seeds):
                run = _run(name, *made, found)
                if run["id"] in found:
                    raise ValueError(f"two runs are called {run['id']}: sweep what tells them apart")
                found[run["id"]] = run
        except ValueError as error:
            raise ValueError(f"study {name}: {error}") from None
    return list(found.values())


def _notebooks(block: Block | Chain) -> list[str]:
    return [next(iter(stage)) for stage in block.stages] if isinstance(block, Chain) else [block.notebook]


def _check_chain(block: Block | Chain) -> None:
    """A stage can follow another, and what is fixed for all is known to one of them at least."""
    if not isinstance(block, Chain):
        return
    known = {notebook: parameters.declared(notebook) for notebook in _notebooks(block)}
    following = _notebooks(block)[0 if block.source else 1 :]
    for notebook in following:
        if "source" not in known[notebook]:
            raise ValueError(
                f"chain {block.chain}: notebook {notebook} has no parameter 'source', so it follows nothing"
            )
    for parameter in block.fixed:
        if not any(parameter in declared for declared in known.values()):
            raise ValueError(f"chain {block.chain}: no stage of it has the parameter {parameter!r} of `fixed`")


def _linked(block: Chain, study: Study, seeds: list[int]):
    """Yield the stages of a chain as `_separate` does its runs, seed by seed."""
    for seed in seeds if block.seeds == "all" else seeds[:1]:
        source = block.source
        for number, stage in enumerate(block.stages, 1):
            notebook, own = next(iter(stage.items()))
            known = parameters.declared(notebook)
            shared = {k: v for k, v in {**study.fixed, **block.fixed, "seed": seed}.items() if k in known}
            values = shared | (own or {}) | ({"source": source} if source else {})
            place = {"chain": block.chain, "stage": number}
            part = Block(notebook=notebook, exclusive=block.exclusive)
            source = f"{block.chain}-{number}-{runs.run_id(notebook, values)}"
            yield part, values, source, place


def _separate(block: Block, study: Study, seeds: list[int]):
    """Yield (block, values as the study writes them, id, nothing more to say) of the runs of a block."""
    for values, swept in _combinations(block, study, seeds):
        yield block, values, runs.run_id(block.notebook, values, swept), {}


def _check_shared(name: str, study: Study) -> None:
    used = {p for block in study.blocks for notebook in _notebooks(block) for p in parameters.declared(notebook)}
    for parameter in study.fixed:
        if parameter not in used:
            raise ValueError(f"study {name}: no notebook of it has the parameter {parameter!r} of `fixed`")


def _combinations(block: Block, study: Study, seeds: list[int]):
    """Yield (values as the study writes them, names whose values go into the run's id)."""
    known = parameters.declared(block.notebook)
    values = {k: v for k, v in study.fixed.items() if k in known} | block.fixed
    grid = dict(block.grid)
    if "seed" in known and "seed" not in values and "seed" not in grid:
        grid["seed"] = seeds if block.seeds == "all" else seeds[:1]
    for point in product(*grid.values()):
        combined = values | dict(zip(grid, point, strict=True))
        if not any(all(combined.get(k) == v for k, v in drop.items()) for drop in block.exclude):
            told_apart = [*TO_DENSITY, "rounds"]
            named = [name for name in told_apart if name in combined]
            yield combined, [*named, *(name for name in grid if name not in told_apart)]


def _run(name: str, block: Block, values: dict, identifier: str, place: dict, earlier: dict[str, dict]) -> dict:
    values, sources = _link(name, values, earlier)
    given = _as_density(block.notebook, values)
    for source in sources:
        given = _inherit(block.notebook, given, earlier[source], alone=len(sources) == 1)
    if "run_dir" in given:
        raise ValueError(
            f"run_dir: received {given['run_dir']!r}, allowed is nothing: each run has its folder in runs/"
        )
    resolved = parameters.resolve(block.notebook, given)
    resolved.pop("run_dir", None)
    return {
        "id": paths.inside("id of a run", identifier),
        "notebook": block.notebook,
        "parameters": resolved,
        "sources": sources,
        "exclusive": block.exclusive,
        **place,
    }


def _link(name: str, values: dict, earlier: dict[str, dict]) -> tuple[dict, list[str]]:
    """Fill `source` and `sources` (templates and patterns over earlier ids) in; return the ids they name."""
    values, ids = dict(values), []
    if values.get("source"):
        identifier = _filled("source", values["source"], values)
        if identifier not in earlier:
            raise ValueError(f"source {identifier!r} is no earlier run, allowed is {_some(earlier)}")
        ids, values["source"] = [identifier], f"{name}/{identifier}"
    if "sources" in values:
        _check_list("sources", values["sources"])
        patterns = [_filled("sources", pattern, values) for pattern in values["sources"]]
        for pattern in patterns:
            matched = [i for i in earlier if fnmatch(i, pattern) and i not in ids]
            if not matched:
                raise ValueError(f"sources pattern {pattern!r} matches no earlier run, allowed is {_some(earlier)}")
            ids += matched
        values["sources"] = [f"{name}/{i}" for i in ids]
    return values, ids


def _filled(name: str, template: Any, values: dict) -> str:
    """The template with `{seed}` and other parameters of the run in place."""
    try:
        return str(template).format(**values)
    except (LookupError, ValueError, AttributeError):
        known = ", ".join(f"{{{value}}}" for value in values)
        raise ValueError(f"{name}: received {template!r}, its placeholders may be {known}") from None


def _check_list(name: str, value: Any) -> None:
    if not isinstance(value, list):
        raise ValueError(f"{name}: received {value!r}, allowed is a list")


def _some(earlier: dict[str, dict], most: int = 6) -> str:
    names = list(earlier)
    if not names:
        return "nothing here: it is the first"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _as_density(notebook: str, values: dict) -> dict:
    """The values with density or densities in place of another word for it; a notebook's own parameter stays."""
    known, given, written = parameters.declared(notebook), {}, []
    for name, value in values.items():
        single = PLURAL.get(name, name)
        if single not in TO_DENSITY or (name in PLURAL and name in known):
            given[name] = value
            continue
        written.append(name)
        target = "densities" if name in PLURAL else "density"
        if name in PLURAL:
            _check_list(name, value)
        given[target] = [_density(single, v) for v in value] if name in PLURAL else _density(single, value)
    if len(written) > 1:
        raise ValueError(f"{' and '.join(written)} both say how much is kept: give one of {', '.join(TO_DENSITY)}")
    return given


def _density(kind: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{kind}: received {value!r}, allowed is a number")
    try:
        density = float(TO_DENSITY[kind](value))
    except ArithmeticError:  # a ratio of 0, a compression of -1000
        density = math.inf
    if not 0 < density <= 1:
        raise ValueError(f"{kind}: received {value!r}, which keeps {density:.6g}; allowed is {ALLOWED[kind]}")
    return density


def _inherit(notebook: str, given: dict, source: dict, alone: bool) -> dict:
    """Take over from the source what both runs must share; ValueError where the study says otherwise.

    `alone` is False for one of several sources, which differ in their pruning.
    """
    known, filled = parameters.declared(notebook), dict(given)
    looks = alone and "pruner" in known and "epochs" not in known
    for name in SAME + PRUNING if looks else SAME:
        if name not in known or name not in source["parameters"]:
            continue
        value = source["parameters"][name]
        if filled.setdefault(name, value) != value:
            raise ValueError(
                f"{name} {filled[name]!r} of {notebook} differs from {value!r} of its source {source['id']}"
            )
    return filled
