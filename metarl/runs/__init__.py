"""Runs: configs, directories, evaluations, comparisons, plots, videos and reports."""
