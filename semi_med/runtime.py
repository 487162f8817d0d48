"""What the process asks of the machine."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import sys
import warnings
from importlib import metadata
from typing import Any

_PACKAGES = (
    *("semi-med", "torch", "monai", "pytorch-ignite", "numpy", "scipy"),
    *("scikit-image", "nibabel", "SimpleITK", "pydicom", "matplotlib"),
)


def keep_freed_memory(largest: int = 2**31 - 1) -> bool:
    """Ask glibc to keep freed memory instead of handing it back and faulting it in again at the next step.

    On a CPU the big activations of a 3D network make this the largest single cost: a training step takes about half
    the time with it. Peak memory grows by a fifth. Set MALLOC_TRIM_THRESHOLD_ to any value to decide for yourself.

    Args:
        largest: bytes; what is larger goes back to the system when it is freed. For prediction, which holds volumes
            beside the activations of windows.

    Returns:
        Whether it was done; never on anything but Linux with glibc.
    """
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    settings = {mmap_threshold: largest, trim_threshold: 2**31 - 1, top_pad: 64 * 2**20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())


def quiet_unused_readers() -> None:
    """Keep MONAI from warning that a GPU codec for DICOM is missing each time it lists its readers; ours reads."""
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_device(device: Any) -> str:
    """Name of a torch device for a log, such as `cpu (2 threads)`."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def describe_machine() -> dict[str, str]:
    """Versions, the device that is used by default, and threads."""
    import torch

    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    threads = {"threads": str(torch.get_num_threads()), "cores": str(os.cpu_count())}
    return {**versions(), "system": platform.platform(), "device": describe_device(device), **threads}
