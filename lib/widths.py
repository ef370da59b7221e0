"""How many bits a rounded weight may have. Torch-free: the same checks serve a study before it starts and a network."""

GRIDS = ("fixed", "int8", "shared")
FIXED_BITS, SHARED_BITS, INT8_BITS = range(2, 17), range(1, 9), 8
CHOSEN = -1  # in place of the bits behind the point: to be chosen, or of a grid that has no point


def check(grid: str, bits: int, fraction: int = CHOSEN) -> None:
    """ValueError in one line for a grid that is not among GRIDS, or that cannot have so many bits.

    Fixed point has 2 to 16 bits, the sign among them, of which 0 to all but the sign lie behind the point (or CHOSEN);
    a codebook has numbers of 1 to 8 bits; int8 has 8. The latter two have no point.
    """
    if grid not in GRIDS:
        raise ValueError(f"unknown grid {grid!r}: one of {', '.join(GRIDS)}")
    allowed = {"fixed": FIXED_BITS, "shared": SHARED_BITS, "int8": [INT8_BITS]}[grid]
    if bits not in allowed:
        words = f"{allowed[0]} to {allowed[-1]}" if len(allowed) > 1 else f"{allowed[0]}"
        raise ValueError(f"weight_bits is {bits} with grid {grid}: {words} is allowed")
    if grid == "fixed" and fraction not in (CHOSEN, *range(bits)):
        raise ValueError(
            f"fraction_bits is {fraction} with weight_bits {bits}: 0 to {bits - 1} is allowed, or -1 to choose"
        )
    if grid != "fixed" and fraction != CHOSEN:
        raise ValueError(f"fraction_bits is {fraction} with grid {grid}, which has no point: -1 is allowed")
