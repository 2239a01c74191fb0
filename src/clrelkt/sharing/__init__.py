"""Encoders for others: exports that other tools open, packages, and model hubs."""

from __future__ import annotations

from clrelkt.sharing.check import ExportCheck, ExportChecker
from clrelkt.sharing.exports import EXPORT_FORMS, ExportForm, export_encoder, open_export
from clrelkt.sharing.onnx_encoder import OnnxEncoder

__all__ = [
    "EXPORT_FORMS",
    "ExportCheck",
    "ExportChecker",
    "ExportForm",
    "OnnxEncoder",
    "export_encoder",
    "open_export",
]
