"""Reference efficient-attention models, and the small trained subjects that are studied with them."""
