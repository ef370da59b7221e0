"""Text of runs in Markdown: what another person's files say is shown as it is written, never obeyed."""

import re

# What has a meaning within a line for JupyterLab or for pandoc.
ACTIVE = re.compile(r"([\\`*_{}\[\]<>#$@~^|!&]|:(?=\S))")
TAG = r"<(?=[A-Za-z/!?])"
# What keeps its own `<`: an escaped character and a code span; in maths a blank after it changes nothing.
PIECES = re.compile(
    rf"(?P<kept><span>\\[$\\]</span>|\\[!-/:-@\[-`{{-~]|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n).)*?(?<!`)(?P=ticks)(?!`))"
    rf"|(?P<maths>\$\$.+?\$\$|\$(?=\S)[^$]*?(?<=[^\s\\])\$)|{TAG}",
    re.S,
)


def line(text: object) -> str:
    """`text` as one line without control characters, which a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def plain(text: str) -> str:
    """Markdown of one line that shows `text` itself, whatever is in it."""
    return ACTIVE.sub(_escaped, " ".join(text.split()))


def _escaped(match: re.Match) -> str:
    # in an element of its own no two of them can enclose maths, which JupyterLab looks for in the page
    return f"<span>\\{match[1]}</span>" if match[1] in "$\\" else f"\\{match[1]}"


def code(name: str) -> str:
    """`name` as code: in as many backticks as it needs."""
    name = " ".join(name.split())
    ticks = "`" * (1 + max((len(run) for run in re.findall("`+", name)), default=0))
    space = " " if "`" in name else ""
    return f"{ticks}{space}{name}{space}{ticks}"


def without_html(markdown: str) -> str:
    """`markdown` in which tags are text; code, maths and escaped characters stay as they are."""
    return PIECES.sub(_without_tag, markdown)


def _without_tag(match: re.Match) -> str:
    return match["kept"] or (re.sub(TAG, "< ", match["maths"]) if match["maths"] else "\\<")
