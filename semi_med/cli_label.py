"""The command `semi-med label`: parses, calls one function."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    studies: Annotated[str, typer.Option(metavar="DIR|URL", help="Folder of the scans, or a DICOMweb server.")],
    bundles: Annotated[
        list[Path] | None,
        typer.Option("--bundle", help="What is trained: of bundles/, or written by init or compose; repeatable."),
    ] = None,
    work: Annotated[Path | None, typer.Option(help="Folder of the models; by default DIR/semi_med.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than this machine's want a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    token: Annotated[
        str | None, typer.Option(envvar="SEMI_MED_LABEL_TOKEN", help="That clients must send; better in the variable.")
    ] = None,
    origins: Annotated[
        list[str] | None, typer.Option("--origin", help="Web page of another server that may use it; repeatable.")
    ] = None,
    hosts: Annotated[list[str] | None, typer.Option("--name", help="Clients call this machine so; repeatable.")] = None,
    outside: Annotated[
        list[Path] | None, typer.Option("--links-to", help="Folder that links of the study may lead to; repeatable.")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Updates of a training; by default the bundle's, at most 1000.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default CUDA if there is one.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting of the bundle; repeatable.")
    ] = None,
    subject_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="What it finds in a scan's name is the subject, for the held-out scans."),
    ] = None,
    held_out: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the labelled scans that are not trained with. [0.2]")
    ] = None,
) -> None:
    """Annotate with 3D Slicer, OHIF or QuPath: train on the labelled scans and all others while you label."""
    from semi_med import launch
    from semi_med.label_app.serve import Request, serve

    request = Request(
        studies=studies,
        bundles=bundles or (),
        work=work,
        host=host,
        port=port,
        token=token,
        origins=origins or (),
        hosts=hosts or (),
        outside=outside or (),
        iterations=iterations,
        device=device,
        settings=dict(launch.parse_setting(text) for text in settings or ()),
        subject_pattern=subject_pattern,
        held_out=held_out,
    )
    serve(request)
