"""The study cos598d from beginning to end at tiny size: small networks in place of its own, 20 images, one epoch."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from stub_study import PATIENCE_S, Bench

from lib import flops, masks, models, paths, runs
from lib.study import spec

RATIOS = [2, 10]
SMALL = {"vgg16-bn": "fc", "vgg16": "conv", "resnet50": "resnet8"}  # its own are tested one by one


def write_images(folder) -> None:
    """Two classes of 32 x 32 colour images, ten of each for training and four for testing."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for label in ("dark", "light"):
            (folder / split / label).mkdir(parents=True)
            for number in range(count):
                pixels = draw.integers(0, 100, (32, 32, 3)) + (120 if label == "light" else 0)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / label / f"{number}.png")


def shrunk(name: str) -> dict:
    """The study file `name` with smaller networks, fewer ratios, rounds, images and epochs; all else as it is."""
    text = (paths.STUDIES / f"{name}.yaml").read_text(encoding="utf-8")
    for network, small in SMALL.items():
        text = text.replace(network, small)
    study = yaml.safe_load(text)
    study["fixed"] |= {"data": "folder-tiny", "batch": 10}
    for block in study["blocks"]:
        block["fixed"] = json.loads(json.dumps(block["fixed"]).replace("cifar10", "folder-tiny"))
        for parameter, value in (("epochs", 1), ("train_images", 20), ("rounds", 2), ("test_images", 8)):
            if parameter in block["fixed"]:
                block["fixed"][parameter] = value
        if "sources" in block["fixed"]:
            block["fixed"] |= {"repeats": 1, "batch": 8}
        if len(block.get("grid", {}).get("ratio", [])) > 1:
            block["grid"]["ratio"] = [ratio for ratio in RATIOS if ratio in block["grid"]["ratio"]]
    return study


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-cos598d"
    with FileLock(f"{root}.lock"), pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_DATA", str(root / "data"))
        made = Bench(root, paths.NOTEBOOKS)
        if not (root / "ended").exists():
            write_images(root / "data" / "tiny")
            (made.studies / "cos598d.yaml").write_text(yaml.safe_dump(shrunk("cos598d-small")), encoding="utf-8")
            driver = made.start("run", "cos598d", "--report", "--jobs", "2")
            out, err = driver.communicate(timeout=2 * PATIENCE_S)
            (root / "ended").write_text(json.dumps([driver.returncode, out, err]))
        return made


def test_every_run_and_the_report_are_made(tiny):
    code, out, err = json.loads((tiny.root / "ended").read_text())
    assert (code, err) == (0, ""), out + err
    assert (tiny.figures / "cos598d" / "report.pdf").read_bytes().startswith(b"%PDF")
    study = spec.Study.model_validate(yaml.safe_load((tiny.studies / "cos598d.yaml").read_text()))
    assert len(runs.finished(tiny.runs / "cos598d")) == len(spec.expand("cos598d", study))


def table(tiny, name: str) -> pd.DataFrame:
    return pd.read_csv(tiny.figures / "cos598d" / f"{name}.csv")


def test_the_headline_has_every_network_and_method(tiny):
    found = table(tiny, "tbl-accuracy")
    assert sorted(set(found["task"])) == [f"tiny / {name}" for name in ("Conv", "FC", "ResNet-8")]
    wanted = {"Dense", "Rand", "Mag", "SNIP", "GraSP", "SynFlow", "SynFlow (2 rounds)"}
    assert wanted < set(found.columns)
    assert not found.isin(["missing"]).any(axis=None)
    assert not found[sorted(wanted)].isna().any(axis=None)


def test_ratio_density_and_sparsity_stand_side_by_side(tiny):
    found = table(tiny, "tbl-top1-1")
    assert found["ratio"].tolist() == [1, 2, 10]
    assert found["density (%)"].tolist() == [100, 50, 10]
    assert found["sparsity (%)"].tolist() == [0, 50, 90]
    assert found.iloc[0, 3:].nunique() == 1, "one dense run fills the row of ratio 1"
    assert table(tiny, "tbl-time-permanent-1")["ratio"].tolist() == [1, 2, 10]


@pytest.mark.parametrize(("number", "model"), [(1, "conv"), (2, "resnet8")])
def test_every_layer_of_both_networks_is_there_for_every_method(tiny, number, model):
    network = models.build(model, (3, 32, 32), 2)
    sizes = {name.removesuffix(".weight"): weight.numel() for name, weight in masks.prunable(network).items()}
    densities, counted = table(tiny, f"tbl-layer-densities-{number}"), table(tiny, f"tbl-layer-macs-{number}")
    assert dict(zip(densities["layer"], densities["weights"], strict=True)) == sizes
    assert counted["Dense"].iloc[-1] == flops.macs(network, (3, 32, 32))["macs_dense"]
    methods = {"Rand", "Mag", "SNIP", "GraSP", "SynFlow", "SynFlow (2 rounds)"}
    assert methods <= set(densities) & set(counted)
    for method in methods:
        share = pd.to_numeric(densities[method].replace({"empty": 0, "<0.01": 0}))
        assert (densities["weights"] * share / 100).sum() == pytest.approx(sum(sizes.values()) / 10, rel=0.01)


def test_there_are_histograms_of_every_layer_for_every_method(tiny):
    found = {path.stem for path in (tiny.figures / "cos598d").glob("fig-histograms-*.png")}
    assert {f"fig-histograms-{n}-1" for n in range(1, 13)} <= found  # six methods, two networks
