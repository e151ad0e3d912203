"""Which points of a long curve are drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from tsdownsample import MinMaxDownsampler


def kept(values: NDArray[np.float64], most: int) -> NDArray[np.intp]:
    """Places of at most `most` (an even number) of the values: the ends, and of each stretch the lowest and the highest."""
    if len(values) <= most:
        return np.arange(len(values))
    inner = MinMaxDownsampler().downsample(values[1:-1], n_out=most - 2)
    return np.concatenate([[0], inner.astype(np.intp) + 1, [len(values) - 1]])
