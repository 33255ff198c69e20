"""Applying a model: model directories, prediction, ONNX."""
