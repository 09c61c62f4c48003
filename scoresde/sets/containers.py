"""The files of a shard: arrays, or a picture of each sample.

The bytes are a function of the arrays alone: archives carry no times and no names of users.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

Rows = Mapping[str, np.ndarray]  # of a shard, one row per sample; x are the samples
Files = dict[str, bytes]


def safetensors(name: str, rows: Rows, data_range: tuple[float, float]) -> Files:
    """All arrays in one file.

    Example:
        >>> list(safetensors("00000001", {"x": np.zeros((2, 3))}, (-1.0, 1.0)))
        ['00000001.safetensors']
    """
    from safetensors.numpy import save

    return {f"{name}.safetensors": save({key: np.ascontiguousarray(value) for key, value in rows.items()})}


def npz(name: str, rows: Rows, data_range: tuple[float, float]) -> Files:
    """All arrays in one file of NumPy.

    Example:
        >>> list(npz("00000001", {"x": np.zeros((2, 3))}, (-1.0, 1.0)))
        ['00000001.npz']
    """
    buffer = io.BytesIO()
    np.savez(buffer, **dict(rows))  # type: ignore[arg-type]
    return {f"{name}.npz": buffer.getvalue()}


def png(name: str, rows: Rows, data_range: tuple[float, float]) -> Files:
    """A picture of each sample, and the other numbers in one JSON file; samples that failed have no picture. Arrays
    with more than one number per sample have a file of their own.

    Example:
        >>> rows = {
        ...     "x": np.zeros((1, 1, 8, 8), dtype=np.float32),
        ...     "index": np.array([7]),
        ... }
        >>> list(png("00000001", rows, (-1.0, 1.0)))
        ['000000000007.png', '00000001.json']
    """
    files = {f"{key}.png": picture for key, picture, _ in _pictures(rows, data_range)}
    numbers = json.dumps([numbers for *_, numbers in _samples(rows)]).encode()
    return {**files, f"{name}.json": numbers, **_others(name, rows)}


def tar(name: str, rows: Rows, data_range: tuple[float, float]) -> Files:
    """An archive as WebDataset reads it: a picture and a JSON file for each sample that has not failed. Arrays with
    more than one number per sample are in a file beside it.

    Example:
        >>> rows = {
        ...     "x": np.zeros((1, 1, 8, 8), dtype=np.float32),
        ...     "index": np.array([7]),
        ... }
        >>> list(tar("00000001", rows, (-1.0, 1.0)))
        ['00000001.tar']
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, picture, numbers in _pictures(rows, data_range):
            for suffix, content in (("png", picture), ("json", json.dumps(numbers).encode())):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return {f"{name}.tar": buffer.getvalue(), **_others(name, rows)}


def _others(name: str, rows: Rows) -> Files:
    """The arrays that neither pictures nor JSON can hold, such as features."""
    found = {key: values for key, values in rows.items() if key != "x" and values.ndim > 1}
    return safetensors(name, {"index": rows["index"], **found}, (-1.0, 1.0)) if found else {}


def _samples(rows: Rows) -> list[tuple[int, str, dict[str, Any]]]:
    """The row, the key and the numbers of each sample."""
    beside = {name: values for name, values in rows.items() if name != "x" and values.ndim == 1}
    numbers = [{name: values[i].item() for name, values in beside.items()} for i in range(len(rows["x"]))]
    return [(i, f"{int(rows['index'][i]):012d}", row) for i, row in enumerate(numbers)]


def _pictures(rows: Rows, data_range: tuple[float, float]) -> list[tuple[str, bytes, dict[str, Any]]]:
    """The key, the picture and the numbers of each sample that is finite."""
    from ..plot import image_grid

    found = []
    for i, key, numbers in _samples(rows):
        if np.isfinite(rows["x"][i]).all():
            buffer = io.BytesIO()
            image_grid(torch.from_numpy(rows["x"][i : i + 1]), data_range=data_range, scale=1).save(buffer, "PNG")
            found.append((key, buffer.getvalue(), numbers))
    return found
