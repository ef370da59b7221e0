"""The state of a training on disk, from which it goes on as if it had never been interrupted.

On a CPU bit for bit, as long as the number of threads is the same: weights, optimizer, scaler, generators and the
position within the epoch all come back.
"""

import pickle
import time
import warnings
from pathlib import Path
from zipfile import BadZipFile

import torch

from lib.files import SAVE_NOW, changed_ns, replacing

EVERY_S = 60.0  # at most so much work is lost; writing ResNet-20 with Adam takes hundredths of a second
ASK_EVERY_S = 1.0  # a look at a shared folder takes up to a millisecond, and a step of training as little


class Checkpoint:
    """One file. `settings` (plain values) say whose training it is, `parts` have state_dict and load_state_dict.

    A file of another training, or a damaged one, is not used: a warning says what differs, and training starts anew.
    """

    def __init__(self, path: Path, settings: dict, parts: dict, generators: dict[str, torch.Generator]):
        self.path, self.settings, self.parts, self.generators = Path(path), settings, parts, generators
        self.saved = self.looked = time.monotonic()
        self.answered = changed_ns(self.path)

    def load(self) -> tuple | None:
        """Bring everything back and return the position that was saved with it; None without a usable file."""
        if not self.path.is_file():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            found = state["settings"]
        except (OSError, RuntimeError, KeyError, TypeError, EOFError, BadZipFile, pickle.UnpicklingError) as error:
            return self._unusable(f"is damaged ({type(error).__name__})")  # torch's own words fill a screen
        if found != self.settings:
            name = next(n for n in (self.settings | found) if self.settings.get(n) != found.get(n))
            return self._unusable(f"is of a training with {name} {found.get(name)}, not {self.settings.get(name)}")
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        return state["position"]

    def _unusable(self, reason: str) -> None:
        warnings.warn(f"checkpoint {self.path} {reason}: training starts anew", RuntimeWarning, stacklevel=4)

    def due(self) -> bool:
        """Whether to save now: a minute has passed, or somebody asks, by touching the file SAVE_NOW beside this one.

        That may have been while the process was still starting; what is older than the state on disk has its answer.
        """
        now = time.monotonic()
        if now - self.looked >= ASK_EVERY_S:
            self.looked, asked = now, changed_ns(self.path.with_name(SAVE_NOW))
            if asked > self.answered:
                self.answered = asked
                return True
        return now - self.saved >= EVERY_S

    def save(self, position: tuple) -> None:
        """Write everything with `position` (plain values and tensors); a full disk costs the checkpoint only."""
        state = {
            "settings": self.settings,
            "position": position,
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
        }
        try:
            with replacing(self.path) as temporary:
                torch.save(state, temporary)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = str(error).splitlines()[0]
            warnings.warn(f"checkpoint {self.path} was not written ({reason})", RuntimeWarning, stacklevel=3)
        self.saved = time.monotonic()

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
