"""The commands, one per file; importing them loads no model library."""
