from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from inference_samples import write_bundle


@pytest.fixture
def volume() -> np.ndarray:
    """(4, 5, 6) int16, all values different."""
    return np.arange(120, dtype=np.int16).reshape(4, 5, 6)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def code_of() -> Callable[[Callable[[], object]], str]:
    """The code of the error that a call raises."""
    from semi_med.errors import SemiMedError

    def call(action: Callable[[], object]) -> str:
        with pytest.raises(SemiMedError) as caught:
            action()
        return caught.value.code

    return call
