# SPDX-License-Identifier: Apache-2.0
"""ONNX files of any exporter to the float network."""

from rowvit.model.importers.onnx.file import OnnxResult, read_onnx

__all__ = ["OnnxResult", "read_onnx"]
