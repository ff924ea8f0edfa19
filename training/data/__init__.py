"""Generators and banks behind `training.conversations`: synthetic, written for this repository."""
