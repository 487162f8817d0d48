"""A network written as TorchScript or ONNX, and such a file run again."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from semi_med.errors import InputError, ResourceError

Format: TypeAlias = Literal["torchscript", "onnx"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILE_NAMES: Mapping[Format, str] = {"torchscript": "model.ts", "onnx": "model.onnx"}
INPUT, OUTPUT = "image", "logits"
OPSET = 17  # of ONNX; the first with all that these networks use in the form that runtimes of 2022 and later read
Runner: TypeAlias = Callable[[Tensor], Tensor]


def check_packages(formats: tuple[Format, ...]) -> None:
    """Refuse a format whose packages are not there, before any work.

    Raises:
        InputError: code SETTING, there is no such format.
        ResourceError: code NO_PACKAGE.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise InputError(f"one of {', '.join(FORMATS)} is wanted, not {unknown[0]!r}", where="--format", code="SETTING")
    if "onnx" in formats:
        try:
            import onnx  # noqa: F401
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise ResourceError(
                "ONNX needs the packages onnx and onnxruntime, which are not installed",
                fix="pip install 'semi-med[export]', or export --format torchscript alone.",
                code="NO_PACKAGE",
            ) from error


def write(network: nn.Module, form: Format, example: Tensor, *, about: Mapping[str, Any]) -> bytes:
    """The network as the content of a file.

    Args:
        network: in evaluation mode, on the CPU.
        form: of the file.
        example: an input (B, C, *window) that it is recorded with.
        about: what is written into the file beside the network.

    Raises:
        InputError: code EXPORT, the network cannot be written in this form.
    """
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # of sizes that a trace holds fast: they are tried out afterwards; and of tools that will change
            warnings.simplefilter("ignore")
            return (_torchscript if form == "torchscript" else _onnx)(network, example, about)
    except Exception as error:  # what an exporter raises is as varied as networks are
        lines = str(error).strip().splitlines()
        raise InputError(
            f"this network cannot be written as {form} ({type(error).__name__}: {lines[0] if lines else ''})",
            where=type(network).__name__,
            fix=f"Leave {form} out with --format.",
            code="EXPORT",
        ) from error


def _torchscript(network: nn.Module, example: Tensor, about: Mapping[str, Any]) -> bytes:
    from monai.data import save_net_with_metadata

    stream = io.BytesIO()
    traced = torch.jit.trace(network, example, check_trace=False)  # compared with the network afterwards
    save_net_with_metadata(traced, stream, include_config_vals=False, meta_values=dict(about))
    return stream.getvalue()


def _onnx(network: nn.Module, example: Tensor, about: Mapping[str, Any]) -> bytes:
    import onnx

    axes = {0: "batch", **{axis: f"size_{axis - 1}" for axis in range(2, example.ndim)}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE_NAMES["onnx"]
        torch.onnx.export(
            network,
            (example,),
            str(path),
            # by a trace, which takes a second where the newer way takes a minute, and leaves sizes open
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
        )
        model = onnx.load(path)
    onnx.checker.check_model(model)
    onnx.helper.set_model_props(model, {name: _as_text(value) for name, value in about.items()})
    content: bytes = model.SerializeToString()
    return content


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def runner(form: Format, content: bytes) -> Runner:
    """The network of a file, as a function from (B, C, *window) to logits (B, classes, *window)."""
    if form == "torchscript":
        loaded = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()

        def run_torchscript(image: Tensor) -> Tensor:
            with torch.no_grad():
                found: Tensor = loaded(image)
            return found

        return run_torchscript
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run_onnx(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])

    return run_onnx
