"""The four ways to say how much a network keeps; `lib` and the notebooks compute with the first.

density      share of the prunable weights that is kept, in (0, 1]
sparsity     share that is removed, 1 - density
ratio        all weights for one kept, 1 / density; papers write 10x
compression  powers of ten of that, -log10(density)
"""

import math

TO_DENSITY = {
    "compression": lambda c: 10.0**-c,
    "ratio": lambda r: 1 / r,
    "density": lambda d: d,
    "sparsity": lambda s: 1 - s,
}


def ratio(compression: float) -> str:
    """`10`, `3.16`, `1,024`, `31,600`: three significant digits, or all of a whole number, which somebody asked for."""
    value = 10**compression
    whole = round(value)
    if math.isclose(value, whole, rel_tol=1e-8):
        return f"{whole:,}"
    return f"{float(f'{value:.3g}'):,.12g}"


def exponent(compression: float) -> str:
    """`0.5`, `1.176`: at most three decimals."""
    return f"{round(compression, 3) + 0.0:g}"


def density(compression: float) -> str:
    """The kept share in per cent, `10`, `6.67`, `0.01`."""
    return f"{100 * 10**-compression:.3g}"


def sparsity(compression: float) -> str:
    """The removed share in per cent, with as many digits as tell it from 100: `90`, `93.3`, `99.99`."""
    kept = 100 * 10**-compression
    text = f"{100 - kept:.{max(1, math.ceil(-math.log10(kept)))}f}"
    return text.rstrip("0").rstrip(".")


def columns(compression: float, word: str) -> dict[str, str]:
    """A table's row headings: ratio, density and sparsity side by side, before them the compression that was asked for.

    `word` is how the study says it, a key of TO_DENSITY; a compression is shown only where it is that word.
    """
    beside = {"ratio": ratio(compression), "density (%)": density(compression), "sparsity (%)": sparsity(compression)}
    return ({"compression": exponent(compression)} if word == "compression" else {}) | beside


def say(compression: float, word: str) -> str:
    """The study's own words: `compression 0.5`, `ratio 10`, `density 10 %`, `sparsity 90 %`."""
    values = {
        "compression": exponent(compression),
        "ratio": ratio(compression),
        "density": f"{density(compression)} %",
        "sparsity": f"{sparsity(compression)} %",
    }
    return f"{word} {values[word]}"


def explain(compression: float, word: str) -> str:
    """The study's words with the others in brackets: `compression 1 (ratio 10, density 10 %, sparsity 90 %)`."""
    others = ", ".join(say(compression, other) for other in ("ratio", "density", "sparsity") if other != word)
    return f"{say(compression, word)} ({others})"
