"""The baseline of the benchmark, frozen: pruning code in the style of the original, and nothing of `lib`.

What pruning code usually does (our own writing, after the structure of the code of Tanaka et al. 2020, arXiv
2006.05467): every image is a PIL image that goes through torchvision transforms in the worker processes of a
DataLoader, every layer multiplies its weights by its mask at every forward, everything is eager, float32 and
channels first, Adam has torch's defaults, and the loss is read after every batch.

On the two cores where the targets of the benchmark were set, a training step of ResNet-20 (256 images) took 0.65 s
and the transforms of one CIFAR-10 image about 150 us; what it takes here is in the table. Ratios of different days
can be compared only as long as this file stays as it is: do not make it faster.

A program: `python -P lib/bench/baseline.py` reads one JSON request a line, `{"do": name, ...}`, and answers each by
one line. The names are the public methods of `Baseline`. Its process shares no setting with ours.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

BATCH = 256
WORKERS = min(4, os.cpu_count() or 1)


class MaskedConv2d(nn.Conv2d):
    """A convolution that multiplies its mask into its weight at every forward."""

    def __init__(self, *sizes, **options):
        super().__init__(*sizes, **options)
        self.register_buffer("weight_mask", torch.ones_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.weight_mask, self.bias)


class MaskedLinear(nn.Linear):
    """A linear layer that multiplies its mask into its weight at every forward."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.register_buffer("weight_mask", torch.ones_like(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.weight_mask, self.bias)


class FC(nn.Module):
    """Six linear layers, the hidden ones of width 100."""

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        sizes = [inputs, 100, 100, 100, 100, 100, classes]
        self.layers = nn.ModuleList(MaskedLinear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class Block(nn.Module):
    """Two convolutions of a CIFAR ResNet and their shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = MaskedConv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = MaskedConv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(MaskedConv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    """The CIFAR ResNet of depth 6n + 2 (He et al. 2016, arXiv 1512.03385, section 4.2), shortcuts with weights."""

    def __init__(self, depth: int, channels: int, classes: int):
        super().__init__()
        self.conv = MaskedConv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        blocks, inputs = [], 16
        for width, first in ((16, 1), (32, 2), (64, 2)):
            for stride in [first] + [1] * ((depth - 2) // 6 - 1):
                blocks.append(Block(inputs, width, stride))
                inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = MaskedLinear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn(self.conv(x)))
        out = self.blocks(out)
        out = F.avg_pool2d(out, out.shape[3])
        return self.fc(out.view(out.size(0), -1))


class ConvModule(nn.Module):
    """A 3x3 convolution with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = MaskedConv2d(inputs, outputs, 3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class VGG(nn.Module):
    """VGG-16 for small images (Simonyan and Zisserman 2015, arXiv 1409.1556), with batch norm and one linear layer."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        layers, inputs = [], channels
        for width in (64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 512):
            layers.append(ConvModule(inputs, width) if width else nn.MaxPool2d(2, 2))
            inputs = width or inputs
        self.layers = nn.Sequential(*layers)
        self.fc = MaskedLinear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layers(x)
        out = F.avg_pool2d(out, out.shape[3])
        return self.fc(out.view(out.size(0), -1))


def build(model: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network called `model` (fc, vgg16, or resnet and a depth) for images of `shape` (C, H, W)."""
    if model == "fc":
        return FC(shape[0] * shape[1] * shape[2], classes)
    if model == "vgg16":
        return VGG(shape[0], classes)
    return ResNet(int(model.removeprefix("resnet")), shape[0], classes)


class Images(Dataset):
    """Pixels (uint8, N x C x H x W) as torchvision's data sets hand them out: a PIL image each, transformed."""

    def __init__(self, pixels: Tensor, labels: Tensor, transform):
        self.pixels = pixels.permute(0, 2, 3, 1).contiguous().numpy()  # N x H x W x C
        self.labels, self.transform = labels.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int):
        pixels = self.pixels[index]
        image = Image.fromarray(pixels) if pixels.shape[2] == 3 else Image.fromarray(pixels[:, :, 0])
        return self.transform(image), self.labels[index]


class Baseline:
    """The program's state: one network, its data, its optimizer."""

    def hello(self) -> dict:
        """What this process computes with."""
        self.device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
        return {"torch": torch.__version__, "threads": torch.get_num_threads(), "workers": WORKERS}

    def prepare(self, folder: str, model: str, augment: bool, mean: list, std: list, classes: int) -> dict:
        """Read images.safetensors and start.safetensors of `folder`, build the network and the loaders."""
        self.folder = Path(folder)
        tensors = load_file(self.folder / "images.safetensors")
        shape = tuple(tensors["train_x"].shape[1:])
        plain = [transforms.ToTensor(), transforms.Normalize(mean, std)]
        changes = [transforms.RandomCrop(shape[1], padding=4), transforms.RandomHorizontalFlip()] if augment else []
        self.train_set = Images(tensors["train_x"], tensors["train_y"], transforms.Compose(changes + plain))
        self.test_set = Images(tensors["test_x"], tensors["test_y"], transforms.Compose(plain))
        options = {"num_workers": WORKERS, "pin_memory": self.device.type == "cuda"}
        if WORKERS and sys.platform == "linux":
            options["multiprocessing_context"] = "fork"  # Python's default up to 3.13
        self.loader = DataLoader(self.train_set, batch_size=BATCH, shuffle=True, **options)
        self.model = build(model, shape, classes).to(self.device)
        self.load("start")
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.batches = None
        return {"parameters": sum(p.numel() for p in self.model.parameters()), "epoch_steps": len(self.loader)}

    def load(self, name: str) -> dict:
        """Read weights and masks: a mask of a weight `a.weight` is called `a.weight_mask`."""
        self.model.load_state_dict(load_file(self.folder / f"{name}.safetensors"))
        return {}

    def train(self, steps: int) -> dict:
        """The first `steps` steps of an epoch: seconds until the first batch came, then of each step to the next."""
        self.model.train()
        start = time.perf_counter()
        batches = iter(self.loader)
        startup_s, step_s, images, total = None, [], 0, 0.0
        for _ in range(steps):
            data, target = next(batches)
            if startup_s is None:
                startup_s = time.perf_counter() - start
                start = time.perf_counter()
            data, target = data.to(self.device), target.to(self.device)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(data), target)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * data.size(0)
            images += data.size(0)
            now = time.perf_counter()
            step_s.append(now - start)
            start = now
        del batches  # ends the workers
        return {"startup_s": startup_s, "step_s": step_s, "images": images, "loss": total / images}

    def transform(self, images: int) -> dict:
        """Seconds of the training transforms of `images` images, one after another in this process."""
        start = time.perf_counter()
        for index in range(images):
            self.train_set[index]
        return {"seconds": time.perf_counter() - start}

    @torch.no_grad()
    def infer(self, images: int) -> dict:
        """Seconds of a pass over the first `images` test images, which are on the device before the clock starts."""
        if self.batches is None:
            pixels = torch.stack([self.test_set[index][0] for index in range(images)])
            self.batches = [batch.to(self.device) for batch in pixels.split(BATCH)]
        self.model.eval()
        self.synchronise()
        start = time.perf_counter()
        for data in self.batches:
            self.model(data)
        self.synchronise()
        return {"seconds": time.perf_counter() - start}

    @torch.no_grad()
    def logits(self) -> dict:
        """Write the logits of the images of `infer` to logits.safetensors."""
        self.model.eval()
        found = torch.cat([self.model(data) for data in self.batches])
        save_file({"logits": found.cpu()}, self.folder / "logits.safetensors")
        return {}

    def synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply
    baseline = Baseline()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(baseline, request.pop("do"))(**request)
        except Exception as error:  # the one who asked reports it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
