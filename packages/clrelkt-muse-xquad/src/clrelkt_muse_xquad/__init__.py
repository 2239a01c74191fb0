"""The encoder muse-xquad; clrelkt.load_encoder("muse-xquad") finds it."""

from pathlib import Path

__all__ = ["folder"]


def folder() -> Path:
    """Return the folder of the encoder."""
    return Path(__file__).parent / "encoder"
