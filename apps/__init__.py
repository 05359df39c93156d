"""The folder that `py4web run apps` serves."""
