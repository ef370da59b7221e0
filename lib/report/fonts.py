"""The sans face of headings, captions and figures: Source Sans Pro (SIL Open Font License), from its own package."""

from importlib.util import find_spec
from pathlib import Path

SANS = "Source Sans Pro"


def folder():
    """Path of the folder that holds the font files; FileNotFoundError where the package is missing."""
    spec = find_spec("font_source_sans_pro")
    if spec is None:
        raise FileNotFoundError("the package font-source-sans-pro is not installed: the report needs its fonts")
    return Path(spec.origin).parent / "files"
