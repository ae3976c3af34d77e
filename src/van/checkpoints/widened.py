"""Notes on tensors that were widened, because numpy lacks their type."""

from __future__ import annotations


class Widened(str):
    """The note on tensors that were widened from bfloat16; tensors: how many."""

    tensors: int


def bfloat16_note(count: int) -> Widened:
    """The note on widened tensors."""
    note = Widened(f"{count} bfloat16 tensors were widened to float32")
    note.tensors = count
    return note
