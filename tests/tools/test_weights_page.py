"""docs/published-weights.md is what the table says."""

import re
from dataclasses import replace
from pathlib import Path

from van.configs import published_weights as weights
from van.tools import weights_page

PAGE = Path(__file__).parents[2] / "docs" / "published-weights.md"


def test_the_page_is_up_to_date(tmp_path):
    weights_page.main([str(tmp_path / "page.md")])
    assert PAGE.read_text() == (tmp_path / "page.md").read_text(), (
        "the table has changed: python -m van.tools.weights_page docs/published-weights.md"
    )


def test_every_row_has_a_line_with_its_links_and_scores():
    page = weights_page.page()
    for row in weights.WEIGHTS:
        (line,) = re.findall(rf"^\| `{row.name}` \|.*$", page, re.MULTILINE)
        for part in (row.link or "not published", row.scores, row.sha256 or "", *row.mirrors, (row.revision or "")[:8]):
            assert part in line
        for remark in (row.licence, row.licence_from, row.score_from or "", row.note, row.erratum):
            assert remark in page


def test_remarks_name_the_rows_that_they_are_about():
    page = weights_page.page()
    assert "* The publisher's error (`upernet_van_b4`): its link has the digits of B3's file" in page
    assert "None of the\n84 rows' files have been opened" in page
    opened = [replace(row, bytes=1) if row.name == "official/van_b0" else row for row in weights.WEIGHTS]
    assert "1 of the\n84 rows' files have been opened" in weights_page.page(opened)
