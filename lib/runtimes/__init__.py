"""Networks in inference runtimes: exported to ONNX, run by ONNX Runtime on a CPU, in float32 and in int8.

ONNX Runtime multiplies dense matrices: single weights that are zero are multiplied like all others.
"""

from lib.runtimes.compared import latencies as latencies
from lib.runtimes.compared import logits as logits
from lib.runtimes.compared import measured as measured
from lib.runtimes.exporting import export as export
from lib.runtimes.int8 import quantise as quantise
from lib.runtimes.session import session as session
from lib.runtimes.sources import examples as examples
from lib.runtimes.sources import load as load
from lib.runtimes.sources import save as save
