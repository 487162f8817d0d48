"""The commands `semi-med prepare <data set>`. Nothing heavy is imported before one of them runs."""

from __future__ import annotations

from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from semi_med import cli_text

if TYPE_CHECKING:
    from semi_med.datasets.prepared import PreparedDataset

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Prepare a data set from its public download: images/, labels/, dataset.json and data lists. Nothing is "
    "fetched; docs/datasets/ says where each comes from and under which terms. Started again, it goes on.",
)

Target = Annotated[Path, typer.Argument(help="A missing or empty folder, or one to go on with.")]
Workers = Annotated[int, typer.Option(min=1, help="Cases at a time; each is held in memory.")]


class PancreasProtocol(str, Enum):
    """Of Pancreas-CT."""

    A = "A"
    B = "B"


class BratsVariant(str, Enum):
    """Of BraTS 2019."""

    flair = "flair"
    regions = "regions"


class AcdcVariant(str, Enum):
    """Of ACDC."""

    volumes = "volumes"
    slices = "slices"


def run(name: str, source: Path, target: Path, **settings: Any) -> None:
    """Prepare the data set of this name and print what was left behind."""
    module = import_module(f"semi_med.datasets.{name}")
    done: PreparedDataset = module.prepare(source, target, progress=cli_text.counter("preparing"), **settings)
    typer.echo(done.summary())


# ---- volumes -------------------------------------------------------------------------------------------------------


@app.command("la")
def prepare_la(
    source: Annotated[Path, typer.Argument(help="The challenge's folder, or one with images/ and labels/.")],
    target: Target,
    workers: Workers = 2,
) -> None:
    """LA, the left atrium in LGE-MR (Atrial Segmentation Challenge 2018): normalise, crop, write the data lists."""
    run("la", source, target, workers=workers)


@app.command("pancreas_ct")
def prepare_pancreas_ct(
    source: Annotated[Path, typer.Argument(help="A folder with PANCREAS_0001 and so on, DICOM, at any depth.")],
    target: Target,
    protocol: Annotated[PancreasProtocol, typer.Option(help="Two that must not be mixed, see the docs.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of label0001.nii.gz, if not in SOURCE.")] = None,
    workers: Workers = 2,
) -> None:
    """Pancreas-CT (TCIA): align labels, resample, crop, write the data lists of protocol A or B."""
    run("pancreas_ct", source, target, protocol=protocol.value, labels=labels, workers=workers)


@app.command("brats2019")
def prepare_brats2019(
    source: Annotated[Path, typer.Argument(help="A folder with HGG and LGG, at any depth.")],
    target: Target,
    variant: Annotated[
        BratsVariant, typer.Option(help="FLAIR and whole tumour as published, or four modalities and three classes.")
    ] = BratsVariant.flair,
    workers: Workers = 2,
) -> None:
    """BraTS 2019: crop to the brain, class indices without gaps, write the data lists."""
    run("brats2019", source, target, variant=variant.value, workers=workers)


@app.command("acdc")
def prepare_acdc(
    source: Annotated[Path, typer.Argument(help="A folder with patient001 and so on, at any depth.")],
    target: Target,
    variant: Annotated[AcdcVariant, typer.Option(help="A case is a frame, or a slice.")] = AcdcVariant.volumes,
    workers: Workers = 2,
) -> None:
    """ACDC: the end-diastolic and end-systolic frames, scaled to 0 to 1, and the data lists by patient."""
    run("acdc", source, target, variant=variant.value, workers=workers)


@app.command("msd")
def prepare_msd(
    source: Annotated[Path, typer.Argument(help="The folder of one task, with its dataset.json.")],
    target: Target,
    subjects: Annotated[
        Path | None, typer.Option(help="CSV with the columns case and subject: which cases show one person.")
    ] = None,
    workers: Workers = 2,
) -> None:
    """Any task of the Medical Segmentation Decathlon: verify, take channels apart, write lists with a seed."""
    run("msd", source, target, subjects=subjects, workers=workers)


# ---- photographs, radiographs and slices ---------------------------------------------------------------------------

PictureSize = Annotated[
    int | None, typer.Option("--size", min=1, help="Columns and rows after resampling; by default as they are.")
]


class LggVariant(str, Enum):
    """Slices as published, or the volumes that the data set's authors train on."""

    slices = "slices"
    buda = "buda"


class Structures(str, Enum):
    """Classes of SCR."""

    three = "3"
    five = "5"


@app.command("camus")
def prepare_camus(
    source: Annotated[Path, typer.Argument(help="A folder with patient0001 and so on, of one edition.")],
    target: Target,
    size: PictureSize = None,
    workers: Workers = 2,
) -> None:
    """CAMUS, echocardiograms, MetaImage or NIfTI; lists by patient. FixMatchSeg: --size 320."""
    run("camus", source, target, size=size, workers=workers)


@app.command("refuge")
def prepare_refuge(
    source: Annotated[Path, typer.Argument(help="A folder with g0001.jpg, g0001.bmp and so on, at any depth.")],
    target: Target,
    size: PictureSize = None,
    workers: Workers = 2,
) -> None:
    """REFUGE, optic disc and cup in photographs of the fundus. FixMatchSeg: --size 320."""
    run("refuge", source, target, size=size, workers=workers)


@app.command("isic2017")
def prepare_isic2017(
    source: Annotated[Path, typer.Argument(help="A folder with ISIC-2017_Training_Data and so on, at any depth.")],
    target: Target,
    size: PictureSize = None,
    workers: Workers = 2,
) -> None:
    """ISIC 2017, lesions in photographs of the skin. FixMatchSeg: --size 320; without, the files as they are."""
    run("isic2017", source, target, size=size, workers=workers)


@app.command("scr_jsrt")
def prepare_scr_jsrt(
    source: Annotated[Path, typer.Argument(help="A folder with JPCLN001.IMG and SCR's fold1 and fold2.")],
    target: Target,
    size: Annotated[int, typer.Option(min=1, max=2048, help="Columns and rows; labels were drawn at 1024.")] = 1024,
    structures: Annotated[
        Structures, typer.Option(help="Lungs, heart, clavicles; or left and right apart.")
    ] = Structures.three,
    workers: Workers = 2,
) -> None:
    """SCR on JSRT, lungs, heart and clavicles in chest radiographs. FixMatchSeg: --size 320."""
    run("scr_jsrt", source, target, size=size, structures=int(structures.value), workers=workers)


@app.command("lgg")
def prepare_lgg(
    source: Annotated[Path, typer.Argument(help="The folder kaggle_3m.")],
    target: Target,
    variant: Annotated[
        LggVariant, typer.Option(help="Slices as published, or volumes as the data set's authors train on.")
    ] = LggVariant.slices,
    workers: Workers = 2,
) -> None:
    """LGG, tumours in brain MR (kaggle_3m): slices or volumes, lists by patient."""
    run("lgg", source, target, variant=variant.value, workers=workers)


@app.command("chase_db1")
def prepare_chase_db1(
    source: Annotated[Path, typer.Argument(help="A folder with Image_01L.jpg, Image_01L_1stHO.png and so on.")],
    target: Target,
    workers: Workers = 2,
) -> None:
    """CHASE_DB1, vessels in photographs of the fundus, both observers; lists by child."""
    run("chase_db1", source, target, workers=workers)


@app.command("covid19_ct")
def prepare_covid19_ct(
    source: Annotated[Path, typer.Argument(help="A folder with tr_im.nii.gz and tr_mask.nii.gz.")],
    target: Target,
    size: PictureSize = None,
    workers: Workers = 2,
) -> None:
    """COVID-19 CT of MedSeg: 100 slices, each a case. SupMix: --size 256."""
    run("covid19_ct", source, target, size=size, workers=workers)


@app.command("cityscapes")
def prepare_cityscapes(
    source: Annotated[Path, typer.Argument(help="A folder with leftImg8bit/ and gtFine/.")],
    target: Target,
    extra: Annotated[bool, typer.Option("--extra", help="Also train_extra, unlabeled (44 GB).")] = False,
    workers: Workers = 2,
) -> None:
    """Cityscapes with 19 classes, for the tables of Dense FixMatch."""
    run("cityscapes", source, target, extra=extra, workers=workers)


@app.command("pascal_voc")
def prepare_pascal_voc(
    source: Annotated[Path, typer.Argument(help="A folder with VOC2012/, and with the augmented set in one form.")],
    target: Target,
    workers: Workers = 2,
) -> None:
    """Pascal VOC 2012 with the augmented set, for the tables of Dense FixMatch."""
    run("pascal_voc", source, target, workers=workers)


# ---- drawings ------------------------------------------------------------------------------------------------------


class Size(str, Enum):
    """Of the phantom's scans."""

    demo = "demo"
    large = "large"


@app.command("phantom")
def prepare_phantom(
    target: Annotated[Path, typer.Argument(help="Folder for images/, labels/ and data_list.json.")],
    size: Annotated[Size, typer.Option(help="About 80 x 80 x 54 voxels, or as large as the scans of LA.")] = Size.demo,
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws another data set.")] = 0,
) -> None:
    """Drawings that imitate a left atrium. They say nothing about patients."""
    from semi_med.datasets import phantom

    typer.echo(phantom.prepare(target, seed=seed, size=size.value, progress=cli_text.counter("drawing")))
