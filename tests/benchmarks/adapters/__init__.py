"""One module for each contender, with a class Adapter; base.py says what it must have."""
