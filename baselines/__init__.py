"""Baselines that meta-learned policies are compared with."""
