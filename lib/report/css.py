"""Style sheets of HTML tables, written into the cells they are for.

JupyterLab removes `<style>` blocks from untrusted notebooks, and pandoc ignores them; a `style` attribute survives.
"""

import re

STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.S)
RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
CELL = re.compile(r"#([\w-]+)(?=\s*(?:,|$))")  # a selector that is one id and nothing else
NAMED = re.compile(r'\s*\bid="([\w-]+)"')
NEITHER = {"inherit", "initial", "unset", "transparent", "currentcolor", "none", "auto"}


def inline(html):
    """`html` with the rules of its `<style>` blocks moved to `style` attributes of the elements they name by id.

    pandas numbers its cells at random (`T_3f2a1_row0_col1`); those ids go, so that equal tables give equal text.
    """
    rules = _rules("\n".join(STYLE.findall(html)))
    return NAMED.sub(lambda match: _attribute(match, rules), STYLE.sub("", html))


def _rules(sheet):
    """{element id: declarations} of a style sheet; rules for anything but a single id are left out."""
    rules = {}
    for selectors, body in RULE.findall(sheet):
        declarations = "; ".join(_declaration(part) for part in body.split(";") if part.strip())
        for name in CELL.findall(selectors):
            rules[name] = f"{rules[name]}; {declarations}" if name in rules else declarations
    return rules


def _declaration(text):
    """One declaration, its colour written as #rrggbb."""
    name, _, value = (part.strip() for part in text.partition(":"))
    return f"{name}: {colour(value) if name in ('color', 'background-color') else value}"


def colour(value):
    """A CSS colour as #rrggbb(aa) where it is one (hexadecimal, rgb(), or a name); else the value itself."""
    if value.startswith("#") or value.lower() in NEITHER:
        return value
    if numbers := re.fullmatch(r"rgba?\(([\d.\s,%]+)\)", value):
        red, green, blue = (float(part) for part in numbers[1].split(",")[:3])
        return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"
    from matplotlib.colors import CSS4_COLORS  # 0.2 s: only for colours given by name

    return CSS4_COLORS.get(value.lower(), value).lower()


def _attribute(match, rules):
    name = match[1]
    if name in rules:
        return f' style="{rules[name]}"'
    return "" if name.startswith("T_") else match[0]
