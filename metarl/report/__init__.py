"""Evaluations, comparisons, plots, videos and result pages."""
