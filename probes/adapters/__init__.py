"""Adapters: one file per model library, behind the one seam of a capture."""
