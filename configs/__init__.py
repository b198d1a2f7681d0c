"""Configs: one YAML file per published experiment, plus a quickstart."""
