"""The study cos598d from beginning to end, with its own networks, at tiny size: 20 images, one epoch."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import yaml
from filelock import FileLock
from PIL import Image
from stub_study import Bench

from lib import paths, runs
from lib.study import spec

RATIOS = [2, 10]


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
    """The study file `name` with fewer ratios, rounds, images and epochs; everything else as it is."""
    study = yaml.safe_load((paths.STUDIES / f"{name}.yaml").read_text(encoding="utf-8"))
    study["fixed"] |= {"data": "folder-tiny", "batch": 10}
    for block in study["blocks"]:
        block["fixed"] = json.loads(json.dumps(block["fixed"]).replace("cifar10", "folder-tiny"))
        for parameter, value in (("epochs", 1), ("train_images", 20), ("rounds", 2), ("test_images", 8)):
            if parameter in block["fixed"]:
                block["fixed"][parameter] = value
        if "sources" in block["fixed"]:
            block["fixed"] |= {"repeats": 1, "batch": 8}
        if len(block.get("grid", {}).get("ratio", [])) > 1:
            block["grid"]["ratio"] = RATIOS
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
            ended = made.run("run", "cos598d", "--report", "--jobs", "2")
            for weights in made.runs.glob("cos598d/*/weights.safetensors"):
                weights.unlink()  # 60 to 90 MB each
            (root / "ended").write_text(json.dumps([ended.returncode, ended.stdout, ended.stderr]))
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
    assert sorted(set(found["task"])) == [f"folder-tiny / {name}" for name in ("ResNet-50", "VGG-16", "VGG-16-BN")]
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


@pytest.mark.parametrize(
    ("number", "layers", "weights", "macs"), [(1, 54, 23_467_712, 1_297_829_888), (2, 14, 14_715_584, 313_201_664)]
)
def test_every_layer_of_both_networks_is_there_for_every_method(tiny, number, layers, weights, macs):
    densities, counted = table(tiny, f"tbl-layer-densities-{number}"), table(tiny, f"tbl-layer-macs-{number}")
    classes = 8 * (2048 if layers == 54 else 512)  # two classes here, ten in the assignment
    assert len(densities) == layers
    assert densities["weights"].sum() == weights - classes
    assert counted["Dense"].iloc[-1] == macs - classes
    assert {"Rand", "Mag", "SNIP", "GraSP", "SynFlow", "SynFlow (2 rounds)"} <= set(densities) & set(counted)
    kept = densities["weights"] * densities["Rand"].astype(float) / 100
    assert kept.sum() == pytest.approx((weights - classes) / 10, rel=0.01)  # shown to two digits


def test_there_are_histograms_of_every_layer_for_every_method(tiny):
    found = {path.stem for path in (tiny.figures / "cos598d").glob("fig-histograms-*.png")}
    vgg, resnet = {f"fig-histograms-{n}-1" for n in range(1, 7)}, {f"fig-histograms-{n}-2" for n in range(7, 13)}
    assert vgg | resnet <= found
