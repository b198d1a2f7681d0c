"""Objects that a trained run is loaded as."""
