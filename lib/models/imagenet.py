"""ResNets and VGGs in the shape for ImageNet: torchvision's own, since their architecture is the same.

Parameter names and initial weights are torchvision's and those of the code of Tanaka et al. 2020 (arXiv 2006.05467)
alike: Kaiming-normal convolutions (fan-out); linear layers are torch's own in ResNets, normal with standard deviation
0.01 in VGGs. The VGGs have dropout of one half before their last two linear layers. Made for 3x224x224; other sizes
run too. torchvision takes 7 s to import, so nothing here does before such a network is built.
"""

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from lib import catalog
from lib.compiling import first_line
from lib.models import vgg

SUFFIX = "-imagenet"
HEADS = ("fc.", "classifier.6.")  # the last layer of a ResNet, of a VGG


def network(shape: tuple[int, int, int], classes: int, *, name: str) -> nn.Module:
    """torchvision's network with fresh weights; `name` is `wide-resnet50`, `vgg16-bn`, and so on.

    ValueError for images without three channels, or too small for a VGG.
    """
    from torchvision.models import get_model

    if shape[0] != 3:
        raise ValueError(f"images for {name}{SUFFIX} have {shape[0]} channels: 3 is allowed")
    if name.startswith("vgg"):
        vgg.check_size(shape, 32)
    return get_model(_torchvision(name), weights=None, num_classes=classes)


def pretrained(name: str) -> dict[str, Tensor]:
    """The ImageNet weights of the network called `name`: torchvision's IMAGENET1K_V1, trained as in the papers.

    torchvision downloads them into `$TORCH_HOME/hub/checkpoints` (by default below `~/.cache/torch`) and compares
    the hash of what it has downloaded; a file that is there already is read, as tensors only. They expect images
    normalised by ImageNet's mean and standard deviation. ValueError for a network without such weights or a damaged
    file, FileNotFoundError where they cannot be downloaded.
    """
    if not name.endswith(SUFFIX):
        known = ", ".join(other for other in catalog.MODELS if other.endswith(SUFFIX))
        raise ValueError(f"no pretrained weights for model {name!r}: one of {known}")
    catalog.check("model", name)
    from torchvision.models import get_model_weights

    return _fetched(get_model_weights(_torchvision(name.removesuffix(SUFFIX))).IMAGENET1K_V1.url)


def load_(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put `weights` into `model`, but for a last layer of another number of classes, which stays as it was drawn."""
    head = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(HEADS)}
    if any(tensor.shape != weights[name].shape for name, tensor in head.items()):
        weights = weights | head
    model.load_state_dict(weights)


def _torchvision(name: str) -> str:
    return name.replace("-", "_") + ("_2" if name.startswith("wide") else "")


def _fetched(url: str) -> dict[str, Tensor]:
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlsplit(url).path).name)
    there = path.is_file()
    options = {"map_location": "cpu", "progress": False, "check_hash": True, "weights_only": True}
    try:
        return torch.hub.load_state_dict_from_url(url, **options)
    except Exception as error:  # urllib, sockets, hashes, unpickling: much can go wrong on the way
        reason = first_line(error)
        if there:
            raise ValueError(f"{path} is damaged ({reason}): delete it, and it is downloaded again") from error
        raise FileNotFoundError(f"{url} could not be downloaded ({reason}): put the file at {path}") from error
