"""Pruners: one function each, from a model and scoring batches to one score for everything that may be pruned.

All share one signature, `pruner(model, batches, *, masks=None, generator=None, training=False) -> Scores`: `batches` is
a list of (x float32 normalised (N, C, H, W), y int64 (N,)) on the model's device; `masks` are those of earlier rounds:
what they name is scored (without masks `lib.masks.prunable(model)`), and weights outside them count as zero;
`generator` is the source of random numbers (only Rand, Uniform and ERK draw any); `training` scores in training mode,
with the statistics of the batches in batch norm, instead of evaluation mode (of no consequence where the network is
not run). Higher scores are kept. Scoring leaves the model as it was: values, gradients, buffers, mode, hooks.

To add a pruner, write such a function (`training` may be missing, if nobody is to score in training mode) and its
line in `lib.catalog.PRUNERS`.
"""

from lib.pruners.activations import wanda as wanda
from lib.pruners.common import Batches as Batches
from lib.pruners.loop import prune as prune
from lib.pruners.loop import scored as scored
from lib.pruners.magnitude import lamp as lamp
from lib.pruners.magnitude import mag as mag
from lib.pruners.magnitude import mag_init as mag_init
from lib.pruners.movement import Movement as Movement
from lib.pruners.movement import movement as movement
from lib.pruners.positions import dense as dense
from lib.pruners.positions import erk as erk
from lib.pruners.positions import rand as rand
from lib.pruners.positions import uniform as uniform
from lib.pruners.second_order import obd as obd
from lib.pruners.second_order import woodfisher as woodfisher
from lib.pruners.sensitivity import grasp as grasp
from lib.pruners.sensitivity import snip as snip
from lib.pruners.sensitivity import synflow as synflow
from lib.rounds import SCHEDULES as SCHEDULES
from lib.rounds import densities as densities
