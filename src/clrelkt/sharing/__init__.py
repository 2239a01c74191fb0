"""Encoders for others: exports that other tools open, packages, and model hubs."""

from __future__ import annotations

from clrelkt.sharing.check import ExportCheck, ExportChecker
from clrelkt.sharing.exports import (
    EXPORT_FORMS,
    TRANSFORMER_FORMS,
    ExportForm,
    export_encoder,
    open_export,
    open_onnx,
)
from clrelkt.sharing.onnx_encoder import OnnxEncoder
from clrelkt.sharing.package import PackageSettings, write_package
from clrelkt.sharing.transformer_onnx import TransformerOnnxEncoder

__all__ = [
    "EXPORT_FORMS",
    "TRANSFORMER_FORMS",
    "ExportCheck",
    "ExportChecker",
    "ExportForm",
    "OnnxEncoder",
    "PackageSettings",
    "TransformerOnnxEncoder",
    "export_encoder",
    "open_export",
    "open_onnx",
    "write_package",
]
