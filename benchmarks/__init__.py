"""Benchmarks: every figure that a document quotes is printed by a command in this folder."""
