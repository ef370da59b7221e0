"""Hooks on the modules of a network that are there inside a `with` only."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Inside the `with` the hooks are registered; after it none is, even if one of them could not be registered.

    `handles` are what torch's `register_..._hook` returns, best as a generator, so that nothing is registered before.
    """
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield
