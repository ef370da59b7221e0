"""What dropout draws from. A module cannot be handed a generator, so torch's global one is lent to a training."""

import torch
from torch import Tensor


class Noise:
    """A stream of random numbers that torch's global generator of `device` carries on inside a `with`.

    After it the global generator is as it was before. `get_state` and `set_state` are those of the stream, inside
    and outside, so that a checkpoint can hold it. Taking a turn costs about 20 microseconds.
    """

    def __init__(self, device: torch.device, seed: int):
        self.generator = _global_generator(device)
        self.waiting = torch.Generator(device).manual_seed(seed).get_state()  # of the stream, or inside of the others'
        self.inside = False

    def __enter__(self) -> "Noise":
        self._swap()
        return self

    def __exit__(self, *error) -> None:
        self._swap()

    def _swap(self) -> None:
        present = self.generator.get_state()
        self.generator.set_state(self.waiting)
        self.waiting, self.inside = present, not self.inside

    def get_state(self) -> Tensor:
        return self.generator.get_state() if self.inside else self.waiting

    def set_state(self, state: Tensor) -> None:
        if self.inside:
            self.generator.set_state(state)
        else:
            self.waiting = state


def _global_generator(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        torch.cuda.init()  # the list below is empty before
        return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    return torch.random.default_generator
