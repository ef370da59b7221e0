"""Analyse a torch.profiler trace: kernels and operators, convolutions, windows, idle time, mask multiplies.

    trace = prepare("trace.json.gz")
    analysis = analyse(trace)          # the last complete step
    analysis["windows"]                # a DataFrame, units in the column names

read.py reads the file; attribute.py nests operators and links kernels to them; steps.py finds the steps;
convolutions.py, multiplies.py, windows.py, tables.py and savings.py compute; analysis.py puts them together; bars.py
lays out the picture that lib.plots_trace draws.
"""

from .analysis import analyse, prepare
from .read import hardware, read, short_name, store
from .tables import metrics, shown_kernels, shown_layers, shown_operators, shown_windows

__all__ = [
    "analyse",
    "hardware",
    "metrics",
    "prepare",
    "read",
    "short_name",
    "shown_kernels",
    "shown_layers",
    "shown_operators",
    "shown_windows",
    "store",
]
