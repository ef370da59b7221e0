"""A study: one YAML file, expanded to runs, executed with papermill, summed up in a report."""
