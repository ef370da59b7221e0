"""A study of compression pipelines on disk, made of numbers: no notebook is executed."""

import pandas as pd

from lib import files, runs
from lib.study import state

IMAGES = 10_000
PARAMETERS, PRUNABLE = 1300, 1200
LAYERS = {"conv": ("convolution", 200), "fc": ("linear", 1000)}  # layer -> holder, weights
# What each kind of stage does to what is kept, the bits of a weight, and the top-1.
STAGES = {
    "pretrained": {"kept": 1.0, "bits": 32, "top1": 90.0},
    "prune_weights": {"kept": 0.2, "bits": 32, "top1": 85.0},
    "prune_activations": {"top1": 84.0, "natural": 40.0, "pruned": 6.0},
    "fine_tune": {"top1": 89.0},
    "quantise": {"bits": 8, "top1": 88.0},
    "coded": {"bits": 5, "top1": 88.0},
}
START = {"natural": 40.0, "pruned": 0.0, "top1": 0.0}
TEXTS = {
    "pretrained": "trained: 10 epochs", "prune_weights": "weights pruned: element-l1, local, density 0.2",
    "prune_activations": "activations pruned: element-l1, 0.1 of what is not zero",
    "fine_tune": "fine-tuned: Adam, 0.0001, 10 epochs, masks held",
    "quantise": "quantised: fixed point, 8 bits, 4 fraction",
    "coded": "coded: Huffman, positions bitmask, zeros dropped",
}  # fmt: skip
FACTS = {
    "threads": 1, "neighbours": 0, "load_at_start": {"cpu_busy_pct": 1.0}, "versions": {"torch": "2"},
    "git": {"commit": None, "dirty": False},
    "hardware": {"cpu": "x", "cores": 1, "memory_gib": 1.0, "os": "y", "gpus": []},
}  # fmt: skip


def parts(state: dict, linear: bool = True, convolutions: bool = True) -> pd.DataFrame:
    """parts.csv of a file in which so much is `kept` with so many `bits`."""
    rows = []
    for layer, (holder, weights) in LAYERS.items():
        if (holder == "linear" and not linear) or (holder == "convolution" and not convolutions):
            continue
        rows.append((f"{layer}.weight", holder, "values", int(weights * state["kept"] * state["bits"] / 8)))
        if state["kept"] < 1:
            rows.append((f"{layer}.weight", holder, "indices", weights // 8))
        if state["bits"] < 8:
            rows.append((f"{layer}.weight", holder, "table", 20))
    rows += [("fc.bias", "bias", "values", 400), ("", "other", "header", 64)]
    return pd.DataFrame(rows, columns=["tensor", "holder", "part", "bytes"])


def metrics(notebook: str, state: dict, table: pd.DataFrame, seed: int) -> dict:
    """metrics.json of a stage."""
    of = {("convolution", "values"): "convolution_bytes", ("linear", "values"): "linear_bytes"}
    of |= {("bias", "values"): "bias_bytes"}
    sizes = dict.fromkeys(("convolution_bytes", "linear_bytes", "bias_bytes", "norm_bytes", "other_bytes"), 0)
    sizes |= dict.fromkeys(("index_bytes", "table_bytes", "header_bytes"), 0)
    for row in table.itertuples():
        metric = {"indices": "index_bytes", "table": "table_bytes", "header": "header_bytes"}.get(row.part)
        sizes[metric or of[row.holder, row.part]] += row.bytes
    dense = 50_000
    kept = dense * state["kept"]
    return {
        "stage": TEXTS[notebook], "parameters": PARAMETERS, "prunable": PRUNABLE,
        "weights_kept": int(PRUNABLE * state["kept"]), "file_bytes": int(table["bytes"].sum()), **sizes,
        "macs_dense": dense, "macs_kept": kept, "macs_natural": kept * (1 - state["natural"] / 100),
        "macs_active": kept * (1 - (state["natural"] + state["pruned"]) / 100),
        "zeros_natural_pct": state["natural"], "zeros_pruned_pct": state["pruned"], "top1_pct": state["top1"],
        "test_loss": 2 - state["top1"] / 50, "validation_top1_pct": state["top1"] + 1, "stage_s": 1.5, "wall_s": 2.0,
        "seed": seed,
    }  # fmt: skip


def layer_rows(state: dict) -> pd.DataFrame:
    """layers.csv."""
    rows = [
        {"layer": name, "kind": holder, "weights": weights, "kept": int(weights * state["kept"]), "macs": 100 * weights,
         "bytes": weights} for name, (holder, weights) in LAYERS.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def effects(state: dict) -> pd.DataFrame:
    """effects.csv of a rounding that makes a tenth of the kept weights zero."""
    kept = [int(weights * state["kept"]) for _, weights in LAYERS.values()]
    rows = zip(LAYERS, kept, (33, 65), (count // 10 for count in kept), (0, 3), (0.01, 0.02), strict=True)
    return pd.DataFrame(rows, columns=["layer", "kept", "values", "zeroed", "clipped", "rms_error"])


def codes() -> pd.DataFrame:
    """codes.csv of two tensors, whose lengths are those of a Huffman code: 1, 2, 3, 3 bits."""
    counts = {-0.5: 60, 0.25: 30, 0.5: 8, 1.0: 2}
    rows = [
        (f"{layer}.weight", symbol, value, count * times, length)
        for layer, times in (("conv", 1), ("fc", 5))
        for symbol, ((value, count), length) in enumerate(zip(counts.items(), (1, 2, 3, 3), strict=True))
    ]
    return pd.DataFrame(rows, columns=["tensor", "symbol", "value", "count", "length"])


def coders(ans: int = 102, huffman: int = 110) -> pd.DataFrame:
    """coders.csv: 600 values of 1.35 bits of entropy."""
    sizes = {"entropy": 101.3, "huffman": huffman, "ans": ans, "zstd": 130}
    rows = [("weights", coder, size, 0.01, 0.02) for coder, size in sizes.items()]
    return pd.DataFrame(rows, columns=["group", "coder", "bytes", "encode_s", "decode_s"])


class Pipeline:
    """A study made stage by stage in `lib.paths.RUNS`: `chain` and `branch` plan and finish runs, `save` ends it."""

    def __init__(self, name: str = "p", data: str = "mnist", model: str = "conv"):
        self.about = {"data": data, "model": model}
        self.plan = {"study": name, "title": "Pipelines", "question": "How small? It depends."}
        self.plan |= {"summary": "summary_pipeline", "word": "density", "runs": []}
        self.linear = self.convolutions = True

    def chain(
        self, name: str, notebooks, seeds=(1,), missing=(), source: str = "", noise: float = 0.1, **changed
    ) -> None:
        """Plan a chain of these notebooks; `missing` are the numbers of stages left open, `changed` replaces a number
        of a kind of stage, such as `quantise={"top1": 50.0}`. `source` is the run before its first stage."""
        for seed in seeds:
            state, before = dict(START), source.format(seed=seed)
            if before:
                state |= STAGES["pretrained"] | changed.get("pretrained", {})
            for number, notebook in enumerate(notebooks, 1):
                state |= STAGES[notebook] | changed.get(notebook, {})
                run = f"{name}-{number}-{notebook}-seed{seed}"
                self.add(run, notebook, {"seed": seed}, before, chain=name, stage=number)
                if number not in missing:
                    back = {"brought_back": state.get("back", 0)} if before else {}
                    self.finish(run, notebook, state | {"top1": state["top1"] + noise * (seed - 1)}, seed, **back)
                before = run

    def branch(
        self, notebook: str, source: str, top1: float, seed: int = 1, digest: str = "", other=None, **parameters
    ):
        """Plan and finish a run of a method that belongs to no chain; `other` are metrics that are not as usual."""
        number = len(self.plan["runs"])
        run = f"{notebook}-{number}-seed{seed}"
        self.add(run, notebook, parameters | {"seed": seed}, source.format(seed=seed))
        state = START | STAGES["pretrained"] | {"kept": parameters.get("share_kept", 1.0), "top1": top1}
        state["pruned"] = 60 * parameters.get("activation_share", 0.0)
        self.finish(run, notebook, state, seed, **({"masks_digest": digest} | (other or {})))

    def add(self, run: str, notebook: str, parameters: dict, source: str, **place) -> None:
        values = self.about | {"source": f"{self.plan['study']}/{source}" if source else ""} | parameters
        sources = [source] if source else []
        entry = {"id": run, "notebook": notebook, "parameters": values, "sources": sources, "exclusive": False}
        self.plan["runs"].append(entry | place)

    def finish(self, run: str, notebook: str, state_of: dict, seed: int, **more) -> None:
        folder = state.folder(self.plan) / run
        folder.mkdir(parents=True)
        table = parts(state_of, self.linear, self.convolutions)
        tables = {"parts": table, "layers": layer_rows(state_of)}
        if notebook == "quantise":
            tables["effects"] = effects(state_of)
        if notebook == "coded":
            tables |= {"codes": codes(), "coders": coders()}
        for name, frame in tables.items():
            frame.to_csv(folder / f"{name}.csv", index=False)
        values = next(entry["parameters"] for entry in self.plan["runs"] if entry["id"] == run)
        data = {
            "name": values["data"],
            "test_images": IMAGES,
            "classes": 10,
            "fingerprint": values["data"],
            "source": "Made up.",
        }
        files.write_json(folder / runs.RUN, FACTS | {"notebook": notebook, "parameters": values, "data": data})
        files.write_json(folder / runs.METRICS, metrics(notebook, state_of, table, seed) | more)

    def save(self) -> str:
        """Leave the plan beside the runs; returns the name of the study."""
        state.save(self.plan)
        return self.plan["study"]


ALL = tuple(STAGES)


def typical(**more) -> Pipeline:
    """Two chains of a task, the second branching from the first's network; pruning methods beside them."""
    made = Pipeline(**more)
    made.chain("whole", ALL)
    made.chain("short", ["prune_weights", "coded"], source="whole-1-pretrained-seed{seed}")
    source = "whole-1-pretrained-seed{seed}"
    for share in (0.5, 0.1):
        for method, top1, digest in (("element-l1", 80, "a"), ("element-l2", 80, "a"), ("random", 60, "b")):
            at = {"method": method, "share_kept": share, "pruning_scope": "local"}
            made.branch("prune_weights", source, top1 * share**0.1, digest=f"{digest}{share}", **at)
    for method, top1 in (("element-l1", 88), ("element-l2", 88), ("map-l1", 70)):
        at = {"activation_method": method, "activation_share": 0.1, "calibrated": False}
        made.branch("prune_activations", source, top1, **at)
    return made
