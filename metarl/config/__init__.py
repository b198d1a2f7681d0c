"""The settings of an experiment: sections, registries, and safe YAML."""
