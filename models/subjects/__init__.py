"""Small trained subjects: their task, their training script and their weights."""
