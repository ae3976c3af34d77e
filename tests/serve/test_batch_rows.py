"""Where the images of a batch job come from: files, Parquet, stores; and how a job treats what it gets."""

import io
import json
import os
import sys

import numpy as np
import pytest
from networks import tiny
from PIL import Image

pytest.importorskip("pyarrow")
import pyarrow as pa
import pyarrow.parquet as pq

import van
from van.cli import main
from van.errors import ConfigError, DataError
from van.images.preprocess import Preprocess
from van.inference.session import open_session
from van.serve import batch_job, stores
from van.serve.batch_job import LocalRunner, LostRowsError, run_job
from van.serve.batch_work import PredictWork, arrow_results, results_of
from van.serve.image_row import ImageRow, arrow_table, rows_of
from van.serve.image_rows import find_rows
from van.serve.part_forms import JsonLines
from van.serve.parts import Parts


def encoded(seed, size=(40, 36)):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = tiny(num_classes=5).eval()
    model.preprocess = Preprocess(size=(32, 32))
    van.save(model, path := tmp_path_factory.mktemp("model") / "tiny.safetensors")
    return path


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for seed in range(5):
        (tmp_path / "photos" / f"{seed}.png").write_bytes(encoded(seed))
    return tmp_path / "photos"


def table(path, images, **columns):
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=2)
    return path


class TestRows:
    def test_files_have_their_path_as_id(self, photos):
        rows = find_rows(["photos", "nothing.png"])
        assert list(rows.ids()) == [f"photos/{seed}.png" for seed in range(5)]
        assert [failure.image for failure in rows.failures] == ["nothing.png"]

    def test_addresses_of_files_and_folders(self, photos):
        (photos / ".hidden.png").write_bytes(b"")
        rows = find_rows([f"file://{photos}", f"file://{photos}/nothing"])
        assert list(rows.ids()) == [f"file://{photos}/{seed}.png" for seed in range(5)]
        assert rows.located[2].picture.read() == encoded(2)
        assert "no such file or folder" in rows.failures[0].reason

    def test_stores_that_fsspec_knows(self, photos):
        fsspec = pytest.importorskip("fsspec")
        memory = fsspec.filesystem("memory")
        memory.pipe("/bucket/a b#1.png", encoded(1))
        memory.pipe("/bucket/deep/2.png", encoded(2))
        rows = find_rows(["memory://bucket"])
        assert list(rows.ids()) == ["memory://bucket/a b#1.png", "memory://bucket/deep/2.png"]
        assert [row.picture.read() for row in rows.located] == [encoded(1), encoded(2)]

    def test_a_store_that_nobody_knows_is_an_error(self):
        with pytest.raises(ConfigError, match="s9://bucket cannot be opened"):
            find_rows(["s9://bucket/photos"])

    @pytest.mark.parametrize("kind", ["bytes", "struct", "paths"])
    def test_a_parquet_file_stores_or_lists_images(self, photos, tmp_path, kind):
        images = {
            "bytes": [encoded(seed) for seed in range(5)],
            "struct": [{"bytes": encoded(seed), "path": None} for seed in range(5)],
            "paths": [f"photos/{seed}.png" for seed in range(5)],
        }[kind]
        rows = find_rows([table(tmp_path / "t.parquet", images)])
        assert list(rows.ids()) == [f"{tmp_path}/t.parquet#{number}" for number in range(5)]
        pictures = [row.picture for row in rows]
        found = [each.read_bytes() if kind == "paths" else each.read() for each in pictures]
        assert found == [encoded(seed) for seed in range(5)]

    def test_only_what_is_not_done_is_read(self, tmp_path):
        path = table(tmp_path / "t.parquet", [encoded(seed) for seed in range(5)], key=list("abcde"))
        rows = find_rows([path], id_column="key").without({"a", "b", "d"})
        assert [(row.id, row.data) for row in rows] == [("c", encoded(2)), ("e", encoded(4))]
        assert len(rows) == 2
        assert [each.group for each in rows.stored] == [1, 2]

    def test_a_folder_of_parquet_files(self, tmp_path):
        (tmp_path / "data").mkdir()
        for name in ("a", "b"):
            table(tmp_path / "data" / f"{name}.parquet", [encoded(0)], key=[name])
        assert list(find_rows([tmp_path / "data"], id_column="key").ids()) == ["a", "b"]

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"image_column": "img"}, "no column 'img'; give --image-column with one of: image, key, number"),
            ({"id_column": "name"}, "no column 'name'; give --id-column"),
            ({"image_column": "number"}, "column 'number' is int64; expected paths"),
        ],
    )
    def test_a_column_that_does_not_fit_is_named(self, tmp_path, options, says):
        path = table(tmp_path / "t.parquet", [encoded(0)], key=["a"], number=[1])
        with pytest.raises(ConfigError, match=says):
            find_rows([path], **options)

    @pytest.mark.parametrize(("keys", "says"), [(["a", "a"], "'a' stands twice"), (["a", None], "row 1 has no id")])
    def test_every_image_has_an_id_of_its_own(self, tmp_path, keys, says):
        with pytest.raises(DataError, match=says):
            find_rows([table(tmp_path / "t.parquet", [encoded(0)] * 2, key=keys)], id_column="key")

    def test_a_broken_parquet_file_is_an_error(self, tmp_path):
        (tmp_path / "t.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError, match="cannot be read as a Parquet file"):
            find_rows([tmp_path / "t.parquet"])

    def test_rows_travel_as_tables(self):
        name = os.fsdecode(b"caf\xe9.png")  # no UTF-8
        rows = [ImageRow("1", "caf.png", name), ImageRow("2", "two", data=b"png")]
        assert rows_of(arrow_table(rows)) == rows


class FlakyRunner(LocalRunner):
    """Loses rows and repeats others, as a cluster whose nodes go."""

    def __init__(self, keep):
        self.keep, self.given = list(keep), []

    def run(self, work, rows, block):
        self.given.append((len(rows), block))
        keep = self.keep.pop(0) if self.keep else 0
        found = list(super().run(work, rows, block))[:keep]
        yield from [*found, *found]
        raise LostRowsError("a node is gone")


class TestJob:
    @pytest.fixture(autouse=True)
    def _no_pauses(self, monkeypatch):
        monkeypatch.setattr(batch_job, "PAUSES_S", (0.0, 0.0))

    def job(self, checkpoint, runner, out="out.jsonl"):
        work = PredictWork(open_session(checkpoint))
        parts = Parts(out, JsonLines(), job=work.job(), resume=False)
        return run_job(work, find_rows(["photos"]), parts, runner)

    def test_what_is_lost_is_run_again_in_smaller_blocks(self, photos, checkpoint, tmp_path):
        runner = FlakyRunner([3, 0, 1, 1])
        assert self.job(checkpoint, runner).images == 5
        assert runner.given == [(5, 256), (2, 16), (2, 1), (1, 1)]
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["id"] for row in rows] == [f"photos/{seed}.png" for seed in range(5)]

    def test_what_never_comes_is_an_error_and_the_rest_is_kept(self, photos, checkpoint, tmp_path):
        with pytest.raises(DataError, match=r"1 of 5 image\(s\).*\(a node is gone\): photos/4.png; .*--resume"):
            self.job(checkpoint, FlakyRunner([4]))
        assert not (tmp_path / "out.jsonl").exists()
        (part,) = (tmp_path / "out.jsonl.parts").glob("part-*")
        assert len(part.read_text().splitlines()) == 4

    def test_an_interrupted_job_has_committed_what_it_has(self, photos, checkpoint, tmp_path):
        class Interrupted(LocalRunner):
            def run(self, work, rows, block):
                for number, row in enumerate(super().run(work, rows, block)):
                    if number == 2:
                        raise KeyboardInterrupt
                    yield row

        with pytest.raises(KeyboardInterrupt):
            self.job(checkpoint, Interrupted())
        (part,) = (tmp_path / "out.jsonl.parts").glob("part-*")
        assert len(part.read_text().splitlines()) == 2

    def test_results_travel_as_tables(self, photos, checkpoint):
        work = PredictWork(open_session(checkpoint))
        rows = list(work.rows(find_rows(["photos"])))
        assert list(results_of(work, arrow_results(work, rows))) == rows
        with pytest.raises(ConfigError, match="no such device"):
            list(results_of(work, arrow_results(work, [], "no such device")))


class TestCommands:
    def test_predict_writes_what_the_predictor_gives(self, photos, checkpoint, capsys):
        (photos / "bad.jpg").write_bytes(b"\xff\xd8 and no more")
        assert main(["predict", str(checkpoint), "photos", "--out", "p.parquet"]) == 1
        said = capsys.readouterr()
        assert said.out == "p.parquet: 5 of 6 image(s)\n"
        assert "skipped: photos/bad.jpg cannot be read as an image" in said.err
        *rows, bad = pq.read_table("p.parquet").to_pylist()
        assert (bad["id"], bad["label"], bad["result"]) == ("photos/bad.jpg", None, None)
        predict = van.Predictor(checkpoint)
        for row in rows:
            expected = predict(row["image"])
            assert (row["label"], row["index"]) == (expected.label, expected.index)
            assert {"image": row["image"], **json.loads(row["result"])}.keys() == expected.to_dict().keys()
            assert row["score"] == pytest.approx(expected.probability, abs=1e-6)

    def test_resuming_adds_what_is_missing(self, photos, checkpoint, capsys):
        arguments = ["predict", str(checkpoint), f"file://{photos}", "--out", "p.jsonl"]
        assert main(arguments) == 0
        before = (photos.parent / "p.jsonl").read_text().splitlines()
        (photos / "new.png").write_bytes(encoded(9))
        assert main([*arguments, "--resume"]) == 0
        assert "5 image(s) are in p.jsonl already; 1 to do" in capsys.readouterr().err
        after = (photos.parent / "p.jsonl").read_text().splitlines()
        assert after[:5] == before
        assert len(after) == 6

    def test_a_folder_of_parquet_files_is_predicted_one_of_images_stays_one(self, photos, checkpoint, capsys):
        table(photos / "metadata.parquet", ["a.png"])
        assert main(["predict", str(checkpoint), "photos", "--out", "p.csv"]) == 0
        (photos.parent / "data").mkdir()
        table(photos.parent / "data" / "a.parquet", [encoded(0)], key=["zero"])
        assert main(["predict", str(checkpoint), "data", "--id-column", "key", "--out", "parts"]) == 0
        (part,) = (photos.parent / "parts").glob("*.parquet")
        assert pq.read_table(part)["id"].to_pylist() == ["zero"]

    def test_embed_writes_an_array_and_its_ids(self, photos, checkpoint, capsys):
        (photos / "2bad.png").write_bytes(b"nothing")
        assert main(["embed", str(checkpoint), "photos", "--stage", "2", "--pool", "none", "--out", "f.npy"]) == 1
        paths = [f"photos/{seed}.png" for seed in range(5)]
        assert json.loads((photos.parent / "f.ids.json").read_text())["ids"] == paths
        expected = van.embed(checkpoint, paths, stage=2, pool="none")
        np.testing.assert_allclose(np.load("f.npy"), expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["predict", "C", "photos", "--ray=nowhere", "--out", "p.parquet"], "--ray 'nowhere' is no address"),
            (["predict", "C", "photos", "--actors", "2"], "--actors belongs to --ray"),
            (["predict", "C", "photos", "--id-column", "key"], "--id-column belongs to Parquet files"),
            (["predict", "C", "photos", "--ray=local"], "give --out"),
            (["predict", "C", "photos", "--ray=local", "--out", "p.csv"], "expected a folder, or a file"),
            (["predict", "C", "photos", "--out", "no/p.parquet"], "there is no folder no"),
            (["predict", "C", "photos", "--ray=local", "--device", "cuda:1", "--out", "p"], "cpu or cuda"),
            (["predict", "C", "no.parquet", "--out", "p.parquet"], "no such file"),
            (["embed", "C", "photos", "--out", "f.npz"], "ends in .parquet, .npy"),
            (["embed", "C", "photos", "--out", "f", "--format", "npy"], "an array is one file"),
            (["embed", "C", "photos", "--out", "f.npy", "--stage", "5"], "stage is 5; expected 1 to 4"),
            (["embed", "C", "photos", "--out", "f.npy", "--pool", "max"], "expected one of avg, none"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, photos, checkpoint, capsys, arguments, says):
        if any("ray" in each for each in arguments) and "address" in says:
            pytest.importorskip("ray")
        before = sorted(photos.parent.iterdir())
        assert main([str(checkpoint) if each == "C" else each for each in arguments]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
        assert sorted(photos.parent.iterdir()) == before

    @pytest.mark.parametrize(
        ("missing", "arguments"),
        [
            ("ray", ["photos", "--ray", "--out", "p.jsonl"]),
            ("pyarrow", ["photos", "--out", "p.parquet"]),
            ("pyarrow", ["t.parquet", "--out", "p.jsonl"]),
            ("pyarrow", ["s3://bucket/photos", "--out", "p.jsonl"]),
        ],
    )
    def test_a_missing_extra_is_named(self, photos, checkpoint, capsys, monkeypatch, missing, arguments):
        table(photos.parent / "t.parquet", ["photos/0.png"])
        for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)  # importing it raises ImportError
        stores._store.cache_clear()
        assert main(["predict", str(checkpoint), *arguments]) == 2
        said = capsys.readouterr().err
        assert f"{missing} is needed" in said
        assert "pip install 'visual-attention-network[ray]'" in said
        assert said.count("\n") == 1
