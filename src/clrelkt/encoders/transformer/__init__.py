"""Transformers of Hugging Face: loading, running without padding, saving."""
