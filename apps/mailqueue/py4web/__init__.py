"""The drop-in for py4web."""
