"""A trained network as a file that runs without this project: TorchScript and ONNX, checked, with a model card."""

from semi_med.export.run import Exported, export_bundle

__all__ = ["Exported", "export_bundle"]
