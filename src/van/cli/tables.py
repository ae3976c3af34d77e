"""Tables of results for people, through rich."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .output import cell, print_table, say

if TYPE_CHECKING:
    from ..tasks.base import Table


def rich_table(table: Table) -> Any:
    """A table of text as rich has it; names are shown as they are."""
    from rich.table import Table as RichTable

    laid_out = RichTable(box=None, pad_edge=False)
    for column in table.columns:
        if column.right:
            laid_out.add_column(column.heading, justify="right", style=column.style or None)
        else:
            laid_out.add_column(column.heading, overflow="fold", style=column.style or None)
    for row in table.rows:
        laid_out.add_row(*map(cell, row))
    return laid_out


def print_titled(table: Table) -> None:
    """Print a table below an empty line and its title."""
    say()
    if table.title:
        say(table.title)
    print_table(rich_table(table))
