"""Encoders for others: exports that other tools open, packages, and model hubs."""

from __future__ import annotations

from clrelkt.sharing.check import ExportCheck, ExportChecker
from clrelkt.sharing.exports import EXPORT_FORMS, ExportForm, export_encoder, open_export
from clrelkt.sharing.onnx_encoder import OnnxEncoder
from clrelkt.sharing.package import PackageSettings, write_package

__all__ = [
    "EXPORT_FORMS",
    "ExportCheck",
    "ExportChecker",
    "ExportForm",
    "OnnxEncoder",
    "PackageSettings",
    "export_encoder",
    "open_export",
    "write_package",
]
