"""The command `export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class ExportFormat(str, Enum):
    """Of an exported network."""

    torchscript = "torchscript"
    onnx = "onnx"


class OneNetwork(str, Enum):
    """Which of the trained networks is exported."""

    first = "1"
    second = "2"


def export(
    bundle: Annotated[Path, typer.Argument(help="A bundle with weights, or the folder of a training run.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder; files of an earlier export are replaced.")],
    formats: Annotated[
        list[ExportFormat] | None, typer.Option("--format", metavar="torchscript|onnx ...", help="By default both.")
    ] = None,
    network: Annotated[OneNetwork, typer.Option(help="Which of two networks.")] = OneNetwork.first,
    weights: Annotated[Path | None, typer.Option(help="Instead of the bundle's models/model.pt.")] = None,
    inputs: Annotated[
        list[Path] | None, typer.Option("--input", help="A scan to compare on, beside random input; repeatable.")
    ] = None,
    metrics: Annotated[
        list[Path] | None,
        typer.Option("--metrics", metavar="JSON", help="A summary of evaluate for the model card; repeatable."),
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="Largest difference that is allowed.")] = 1e-4,
) -> None:
    """TorchScript and ONNX of the network that segments, compared with it, and a model card of what is known."""
    from semi_med.export import export_bundle

    done = export_bundle(
        bundle,
        output,
        formats=[one.value for one in formats or ExportFormat],
        network=network.value,
        weights=weights,
        inputs=inputs or (),
        metrics=metrics or (),
        tolerance=tolerance,
        say=lambda line: typer.echo(line, err=True),
    )
    for path in done.written:
        typer.echo(path)
