"""Reference efficient-attention models, and the small trained subjects they are studied with."""
