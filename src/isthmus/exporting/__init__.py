"""Export: a bundle's networks as ONNX graphs that other runtimes serve, and packages of bundles."""

from isthmus.exporting.export import Exported, export
from isthmus.exporting.pyfunc_package import mlflow_package

__all__ = ["Exported", "export", "mlflow_package"]
