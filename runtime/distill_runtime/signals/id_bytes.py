"""Ids as little-endian bytes, in as few as the format gives each."""

import torch

_WHOLE = 4
"""Bytes of an id before its upper ones, which are 0, are cut off."""


def ids_to_bytes(ids: torch.Tensor, size: int) -> torch.Tensor:
    """[T, K] ids -> [T, K · size] uint8, on the ids' device."""
    whole = ids.to(torch.int32).contiguous().view(torch.uint8).view(*ids.shape, _WHOLE)
    return whole[..., :size].flatten(1)


def bytes_to_ids(stored: torch.Tensor, size: int) -> torch.Tensor:
    """[T, K · size] uint8 -> [T, K] int64, on the bytes' device."""
    rows, columns = stored.shape
    whole = torch.zeros(rows, columns // size, _WHOLE, dtype=torch.uint8, device=stored.device)
    whole[..., :size] = stored.reshape(rows, columns // size, size)
    return whole.view(torch.int32)[..., 0].long()
