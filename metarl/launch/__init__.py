"""Training: single runs, several seeds, sweeps and searches."""
