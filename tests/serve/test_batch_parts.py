"""Committed parts: what is there survives, no id stands twice, and resuming goes on from it."""

import json

import numpy as np
import pytest

from van.errors import ConfigError, DataError
from van.serve.part_forms import FeatureArray, FeatureParquet, JsonLines, PredictionParquet, form_of, ids_file
from van.serve.parts import Parts

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq

JOB = {"checkpoint": "a.safetensors", "size": (32, 32)}


def prediction(key, reason=None):
    row = {"id": key, "image": f"{key}.png", "reason": reason}
    return row if reason else row | {"label": "cat", "index": 1, "score": 0.5, "result": json.dumps({"label": "cat"})}


def feature(key, shape=(3,)):
    return {"id": key, "image": key, "reason": None, "features": np.full(shape, float(key), np.float32)}


def opened(path, form, *, resume=False, job=JOB, **options):
    return Parts(str(path), form, job=job, resume=resume, **options)


def ids(parts):
    return [key for part in parts.parts() for key, _ in parts.form.ids(part)]


@pytest.mark.parametrize("form", [JsonLines(), PredictionParquet()])
def test_rows_become_one_file_and_the_parts_go(tmp_path, form):
    out = tmp_path / f"out{form.suffix}"
    parts = opened(out, form)
    assert parts.add(prediction("1"))
    parts.commit()
    assert parts.add(prediction("2", "is broken"))
    parts.finish(["1", "2"])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert [(row["id"], row["image"], row["reason"]) for row in form.read(out)] == [
        ("1", "1.png", None),
        ("2", "2.png", "is broken"),
    ]


def test_lines_are_the_values_of_a_result(tmp_path):
    parts = opened(tmp_path / "out.jsonl", JsonLines())
    parts.add(prediction("1"))
    parts.add(prediction("2", "is broken"))
    parts.finish(["1", "2"])
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"id": "1", "image": "1.png", "label": "cat"},
        {"id": "2", "image": "2.png", "reason": "is broken"},
    ]


def test_columns_of_predictions(tmp_path):
    parts = opened(tmp_path / "out.parquet", PredictionParquet())
    parts.add(prediction("1"))
    parts.finish(["1"])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "image", "label", "index", "score", "result", "reason"]
    assert table.to_pylist()[0]["score"] == 0.5
    assert json.loads(table.schema.metadata[b"van"]) == {"checkpoint": "a.safetensors", "size": [32, 32]}


def test_an_id_that_comes_twice_is_taken_once(tmp_path):
    parts = opened(tmp_path / "out", JsonLines())
    assert parts.add(prediction("1"))
    assert not parts.add(prediction("1"))
    parts.commit()
    assert not parts.add(prediction("1"))
    parts.commit()
    assert ids(parts) == ["1"]
    assert parts.verify(["1", "2"]) == ["2"]


def test_an_id_that_stands_twice_on_the_disk_is_found(tmp_path):
    parts = opened(tmp_path / "out", JsonLines())
    for number in (7, 8):
        JsonLines().write(parts.folder / f"part-{number:06d}.jsonl", [prediction("1")])
    with pytest.raises(DataError, match="'1' 2 times"):
        parts.verify(["1"])


def test_what_waits_is_committed_when_there_is_enough_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("van.serve.parts.PART_ROWS", 2)
    parts = opened(tmp_path / "out", JsonLines())
    for key in "12345":
        parts.add(prediction(key))
    assert ids(parts) == ["1", "2", "3", "4"]
    parts.close()
    assert ids(parts) == ["1", "2", "3", "4", "5"]


def test_a_second_run_resumes_or_is_refused(tmp_path):
    first = opened(tmp_path / "out", JsonLines())
    first.add(prediction("1"))
    first.add(prediction("2", "is broken"))
    first.close()
    with pytest.raises(ConfigError, match=r"1 part.*--resume"):
        opened(tmp_path / "out", JsonLines())
    again = opened(tmp_path / "out", JsonLines(), resume=True)
    assert again.done == {"1"}  # what failed is tried again
    again.add(prediction("2"))
    again.close()
    assert sorted(ids(again)) == ["1", "2"]


def test_resuming_with_other_options_is_refused(tmp_path):
    first = opened(tmp_path / "out.jsonl", JsonLines())
    first.add(prediction("1"))
    first.close()
    with pytest.raises(ConfigError, match=r"begun with another checkpoint \(a.safetensors, now b.safetensors\)"):
        opened(tmp_path / "out.jsonl", JsonLines(), resume=True, job={**JOB, "checkpoint": "b.safetensors"})


@pytest.mark.parametrize("form", [FeatureArray(), FeatureParquet()])
def test_a_finished_file_is_resumed_and_keeps_its_options(tmp_path, form):
    out = tmp_path / f"out{form.suffix}"
    first = opened(out, form, keep_failures=False)
    first.add(feature("1"))
    first.finish(["1"])
    with pytest.raises(ConfigError, match="another checkpoint"):
        opened(out, form, resume=True, job={**JOB, "checkpoint": "b"}, keep_failures=False)
    again = opened(out, form, resume=True, keep_failures=False)
    assert not again.add(feature("1"))
    again.add(feature("2"))
    again.finish(["1", "2"])
    assert [row["features"].tolist() for row in form.reopen(out)] == [[1, 1, 1], [2, 2, 2]]


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    first = opened(tmp_path / "out", JsonLines())
    with pytest.raises(ConfigError, match="another process"):
        opened(tmp_path / "out", JsonLines(), resume=True)
    first.close()
    opened(tmp_path / "out", JsonLines()).close()
    assert not (tmp_path / "out").exists()  # nothing came into it


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / ".part-000000.jsonl.abcd_123.part").write_text('{"id": "1", "im')
    parts = opened(folder, JsonLines(), resume=True)
    parts.add(prediction("1"))
    parts.close()
    assert sorted(path.name for path in folder.iterdir()) == ["_job.json", "part-000000.jsonl"]


def test_an_array_is_in_the_order_of_the_inputs(tmp_path, monkeypatch):
    monkeypatch.setattr("van.serve.parts.PART_ROWS", 2)
    out = tmp_path / "features.npy"
    parts = opened(out, FeatureArray(), keep_failures=False)
    for key in "3142":
        parts.add(feature(key, (2, 2)))
    parts.add({"id": "5", "image": "5", "reason": "is broken"})
    assert parts.verify("12345") == []
    parts.finish("12345")
    assert np.load(out)[:, 0, 0].tolist() == [1, 2, 3, 4]
    assert np.load(out).shape == (4, 2, 2)
    assert json.loads(ids_file(out).read_text())["ids"] == ["1", "2", "3", "4"]


def test_maps_of_several_sizes_are_no_array(tmp_path):
    parts = opened(tmp_path / "features.npy", FeatureArray(), keep_failures=False)
    parts.add(feature("1", (2, 4, 4)))
    with pytest.raises(DataError, match=r"2 has features of shape \(2, 4, 5\), others have \(2, 4, 4\).*--pool avg"):
        parts.add(feature("2", (2, 4, 5)))
    parts.close()


def test_maps_of_several_sizes_are_rows_of_parquet(tmp_path):
    parts = opened(tmp_path / "out.parquet", FeatureParquet(), keep_failures=False)
    shapes = [(2, 4, 4), (2, 4, 5)]
    for key, shape in zip("12", shapes, strict=True):
        parts.add(feature(key, shape))
    parts.finish("12")
    assert [row["features"].shape for row in FeatureParquet().read(tmp_path / "out.parquet")] == shapes


FORMS = (PredictionParquet(), JsonLines())


@pytest.mark.parametrize(
    ("out", "wanted", "expected"),
    [
        ("a.parquet", None, "parquet"),
        ("a.JSONL", None, "jsonl"),
        ("folder", None, "parquet"),
        ("folder", "jsonl", "jsonl"),
    ],
)
def test_the_form_is_that_of_the_suffix_or_the_one_asked_for(out, wanted, expected):
    assert form_of(out, wanted, FORMS).name == expected


@pytest.mark.parametrize(
    ("out", "wanted", "says"),
    [
        ("a.csv", None, "expected a folder, or a file"),
        ("a.parquet", "jsonl", "do not fit"),
        ("folder", "csv", "this writes parquet, jsonl"),
    ],
)
def test_a_form_that_is_none_is_refused(out, wanted, says):
    with pytest.raises(ConfigError, match=says):
        form_of(out, wanted, FORMS)


def test_a_file_of_another_command_is_refused(tmp_path):
    (tmp_path / "out.jsonl").write_text('{"image": "a.png", "label": "cat"}\n')
    with pytest.raises(DataError, match="is no file of this command"):
        opened(tmp_path / "out.jsonl", JsonLines(), resume=True)
