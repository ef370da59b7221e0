"""Imports without what they do not need."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

# jsonschema, which nbformat needs, compiles this package's grammar of addresses (RFC 3987) wherever it is installed, as
# it is with Jupyter's server: 0.9 of the 1.2 s that `import nbformat` takes, and no notebook has such a field
GRAMMAR = "rfc3987_syntax"


@contextmanager
def without(module: str) -> Iterator[None]:
    """Inside the `with`, `module` is not found, as where it is not installed; unless it has been imported before."""
    hidden = module not in sys.modules
    if hidden:
        sys.modules[module] = None
    try:
        yield
    finally:
        if hidden:
            del sys.modules[module]
