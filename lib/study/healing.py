"""Which errors may be gone another time."""

# What can go wrong with a machine and not with a run, by the names of Python and torch: worth another try. A full or
# read-only folder is not among them, it stays so for a while.
HEALING = ("DeadKernelError", "OutOfMemoryError", "AcceleratorError", "MemoryError", "TimeoutError", "ConnectionError")
HEALING += ("BlockingIOError", "ConnectionResetError", "BrokenPipeError", "RuntimeError: CUDA", "RuntimeError: cuDNN")
HEALING += ("RuntimeError: Kernel", "LostRun")


def may_heal(error: str) -> bool:
    """Whether a run that ended with this line of `explain` may succeed another time: a kernel died, memory was short.

    An error that the notebook itself raised, such as a ValueError for a bad parameter, comes again.
    """
    return error.startswith(HEALING)


def explain(error: Exception) -> str:
    """One line: the error inside the notebook where papermill reports one, else the error itself."""
    name = getattr(error, "ename", type(error).__name__)
    text = str(getattr(error, "evalue", error)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{name}: {lines[0] if lines else 'no message'}"
