"""The generators and word banks behind `training.conversations`: all synthetic, all written for this repository."""
