"""Rounds of pruning: what density each of them leaves, and which weights compete for it.

Torch-free, so that the same checks serve a study before it starts and a pruning.
"""

SCHEDULES = ("exponential", "linear")
SCOPES = ("global", "layer", "output", "fours")


def densities(density: float, rounds: int, schedule: str) -> list[float]:
    """The density after each round; the last is exactly `density`."""
    shares = [r / rounds for r in range(1, rounds)]
    if schedule == "exponential":
        return [density**share for share in shares] + [density]
    return [1 - (1 - density) * share for share in shares] + [density]


def check_scope(scope: str, shares: list[float]) -> None:
    """ValueError for an unknown scope, or one that cannot keep these shares, one after the other."""
    if scope not in SCOPES:
        raise ValueError(f"unknown scope {scope!r}: one of {', '.join(SCOPES)}")
    if scope == "fours":
        for share in shares:
            quarters(share)


def quarters(density: float) -> float:
    """`density` if it is 1/4, 1/2, 3/4 or 1, without what rounding has added to it; ValueError otherwise."""
    found = round(4 * density) / 4
    if not found or abs(density - found) > 1e-9:
        raise ValueError(f"density is {density:g} with scope fours: 0.25, 0.5, 0.75 and 1 are allowed, in every round")
    return found
