"""Our side of the benchmark: a program that trains and infers with the workbench's own functions when it is told to.

`python -m lib.bench.ours` reads one JSON request a line, `{"do": name, ...}`, and answers each by one line, as the
baseline's program does. The names are the public methods of `Ours`.
"""

import copy
import json
import os
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib import compact, compiling, device, flops, inference, models, pruners, timing
from lib import data as datasets
from lib.data import Dataset
from lib.masks import Masks, apply_masks_
from lib.train import train

BATCH = 256
PRECISIONS = {"float32": "float32", "mixed": "amp"}  # the name in the table -> that of lib.train
STUDY_EPOCHS = 10  # whether a step is worth a graph is decided as for a training of this length
SIZES = {"cifar10": (50_000, 10_000), "mnist": (60_000, 10_000)}  # training and test images
SHAPES = {"cifar10": (3, 32, 32), "mnist": (1, 28, 28)}


def read(name: str) -> Dataset:
    """The data set `name` where its files are already here, else `synthetic` images: a benchmark downloads nothing."""
    os.environ.setdefault("WORKBENCH_DATA", str(datasets.DOWNLOADS))  # with it, nothing is ever downloaded
    try:
        return datasets.load(name)
    except FileNotFoundError:
        return synthetic(name)


def synthetic(name: str, seed: int = 0) -> Dataset:
    """Random uint8 images with the numbers and shapes of CIFAR-10 or MNIST: ten patterns of squares under noise.

    Networks learn to tell the patterns apart in a few steps, so that their predictions mean something.
    """
    counts, shape = SIZES[name], SHAPES[name]
    draw = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 128, (10, shape[0], 4, 4), generator=draw, dtype=torch.uint8)
    patterns = coarse.repeat_interleave(shape[1] // 4, 2).repeat_interleave(shape[2] // 4, 3)
    tensors = []
    for count in counts:
        labels = torch.randint(0, 10, (count,), generator=draw)
        noise = torch.randint(0, 128, (count, *shape), generator=draw, dtype=torch.uint8)
        tensors += [noise + patterns[labels], labels]
    mean, std = datasets.CIFAR10_STATISTICS if name == "cifar10" else datasets.MNIST_STATISTICS
    info = {"source": f"random images of the shapes and numbers of {name}, since its files are not here"}
    return Dataset(name, *tensors, classes=10, mean=mean, std=std, augment=name == "cifar10", info=info)


def for_baseline(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Weights and masks under the names of the baseline: the mask of `a.weight` is `a.weight_mask`."""
    state = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return state | {f"{name}_mask": mask.to("cpu", torch.float32).contiguous() for name, mask in masks.items()}


class Ours:
    """The program's state: one network and its masks, its data, the forms of its inference."""

    def hello(self) -> dict:
        """What this process computes with."""
        self.device = device.choose()
        cuda = self.device.type == "cuda"
        self.half = torch.float16 if cuda else torch.bfloat16
        device.settle(self.device)
        return {
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name() if cuda else "CPU",
            "cuda": cuda,
            "threads": torch.get_num_threads(),
        }

    def prepare(self, folder: str, data: str, model: str, density: float, seed: int) -> dict:
        """Read the images, build and prune (SNIP) the network, and leave both in `folder` for the baseline."""
        self.folder = Path(folder)
        images = read(data)
        names = ("train_x", "train_y", "test_x", "test_y")
        save_file({name: getattr(images, name) for name in names}, self.folder / "images.safetensors")
        self.data = replace(images, **{name: getattr(images, name).to(self.device) for name in names})
        network = models.build(model, images.shape, images.classes, seed).to(self.device)
        self.masks = pruners.prune(network, "snip", density, datasets.scoring_batches(self.data, seed=seed), seed=seed)
        apply_masks_(network, self.masks)
        save_file(for_baseline(network, self.masks), self.folder / "start.safetensors")
        self.network = network
        self.trained = {precision: copy.deepcopy(network) for precision in PRECISIONS}
        return {
            "macs": flops.macs(network, images.shape)["macs_dense"],
            "train_images": len(images.train_x),
            "test_images": len(images.test_x),
            "source": images.info["source"],
            "mixed": str(self.half).removeprefix("torch."),
            "for_baseline": {
                "augment": images.augment,
                "mean": list(images.mean),
                "std": list(images.std),
                "classes": images.classes,
            },
        }

    def train(self, steps: int, precision: str, graph: bool) -> dict:
        """Train on the first `steps` batches of the images (all, where there are no more), augmentation included.

        `seconds` are those of the epoch without making a graph, `whole_s` is the call with everything. Where
        `graph` is False, a CPU steps eagerly; a graph is otherwise used as a training of ten epochs would.
        """
        images = self.data.train_x[: steps * BATCH]
        part = replace(
            self.data,
            train_x=images,
            train_y=self.data.train_y[: len(images)],
            test_x=self.data.test_x[:BATCH],
            test_y=self.data.test_y[:BATCH],
        )
        network, wanted = self.trained[precision], PRECISIONS[precision]
        planned = STUDY_EPOCHS * (len(self.data.train_x) // BATCH)
        graph = (graph or self.device.type == "cuda") and compiling.pays(
            network, self.data.shape, planned, BATCH, wanted
        )
        start = time.perf_counter()
        options = {"epochs": 1, "masks": self.masks, "batch": BATCH, "precision": wanted, "graph": graph}
        row = train(network, part, **options)[0]
        whole_s = time.perf_counter() - start
        return {"seconds": row["train_s"], "images": len(images), "step": row["step"], "whole_s": whole_s}

    def multiply(self, precision: str, sizes: list[int]) -> dict:
        """The best rate of square matrix products of these sizes, in floating-point operations a second.

        In float32 on a GPU with TF32, as convolutions there use it by torch's default.
        """
        dtype = self.half if precision == "mixed" else torch.float32
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
        rates = []
        for size in sizes:
            a, b = torch.rand(2, size, size, device=self.device).to(dtype)
            result = torch.mm(a, b)
            device.synchronise(self.device)
            start = time.perf_counter()
            torch.mm(a, b, out=result)
            device.synchronise(self.device)
            rates.append(2 * size**3 / (time.perf_counter() - start))
        torch.backends.cuda.matmul.allow_tf32 = before
        return {"rate": max(rates)}

    def forms(self, steps: int) -> dict:
        """Train the pruned network a little, leave it for the baseline, and make its forms for inference.

        Returns what each form is made of: name -> plain facts.
        """
        self.train(steps, "mixed", graph=False)
        network = self.trained["mixed"].eval()
        save_file(for_baseline(network, self.masks), self.folder / "trained.safetensors")
        sample = datasets.normalise(self.data, self.data.test_x[:BATCH])
        smaller, removed = compact.compact(network, self.masks, self.data.shape)
        self.networks = {"permanent": network, "compact": smaller}
        said = {"permanent": {}, "compact": removed}
        for precision, (kind, source) in product(("float32", "bfloat16"), (("fast", network), ("compact", smaller))):
            form = f"{kind} {precision}"
            self.networks[form], said[form] = inference.fast(source, precision=precision, sample=sample)
        return {"forms": said}

    @torch.inference_mode()
    def compare(self, form: str, images: int) -> dict:
        """How the predictions of `form` differ from those that the baseline has left in logits.safetensors."""
        reference = load_file(self.folder / "logits.safetensors")["logits"]
        batches = self.data.test_x[:images].split(BATCH)
        found = torch.cat([self.networks[form](datasets.normalise(self.data, x)).cpu() for x in batches])
        return inference.agreement(reference, found)

    def infer(self, form: str, images: int) -> dict:
        """Seconds of a pass over the first `images` test images."""
        rows = timing.inference(
            {(form, form): self.networks[form]}, self.data, batch=BATCH, repeats=1, warmup=0, test_images=images
        )
        return {"seconds": rows[0]["seconds"]}


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply
    ours = Ours()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(ours, request.pop("do"))(**request)
        except Exception as error:  # the one who asked reports it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
