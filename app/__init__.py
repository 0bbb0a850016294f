"""The command line and, behind it, what each command does."""
