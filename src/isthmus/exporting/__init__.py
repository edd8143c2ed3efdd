"""Export: a bundle's networks as ONNX graphs that other runtimes serve."""

from isthmus.exporting.export import Exported, export

__all__ = ["Exported", "export"]
