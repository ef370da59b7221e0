"""Compute and record halves of the Pruning Workbench."""
