"""The benchmark: what the workbench saves against code in the usual style, measured side by side in one run."""
