"""Interventions: change what attention does while a model runs or generates."""

__all__: list[str] = []
