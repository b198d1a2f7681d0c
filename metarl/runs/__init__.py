"""The run directory: config, checkpoint, metrics and provenance."""
