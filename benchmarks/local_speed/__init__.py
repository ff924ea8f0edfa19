"""The parts of `local_runtime.py`: ways to run a model, and what is measured of them in turns."""
