"""Batch jobs on a Ray cluster of two nodes: every image once, whatever dies."""

import json

import numpy as np
import pytest
from networks import tiny
from PIL import Image

pytest.importorskip("ray")

import pyarrow as pa
import pyarrow.parquet as pq
from ray_cluster import actors, kill, two_nodes

import van
from van.cli import main
from van.images.preprocess import Preprocess
from van.inference.session import open_session
from van.serve.batch_job import run_job
from van.serve.batch_work import PredictWork
from van.serve.image_rows import find_rows
from van.serve.part_forms import PREDICTIONS
from van.serve.parts import Parts
from van.serve.ray_runner import RayRunner

pytestmark = [pytest.mark.slow]
COUNT = 96


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """So large that decoding them takes a while: the cluster is at work when something dies."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(COUNT):
        coarse = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        coarse.resize((1600, 1400), Image.Resampling.NEAREST).save(folder / f"{number:03d}.jpg", quality=50)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 and no more")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    model = tiny(num_classes=5).eval()
    model.preprocess = Preprocess(size=(32, 32))
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    van.save(model, path)
    return path


class CountingRunner(RayRunner):
    """Notes how many images each attempt was given."""

    def __init__(self):
        super().__init__()
        self.attempts = []

    def run(self, work, rows, block):
        self.attempts.append(len(rows))
        return super().run(work, rows, block)


def test_what_dies_in_the_middle_loses_and_duplicates_nothing(cluster, photos, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("van.serve.parts.PART_ROWS", 10)
    nodes, second = cluster
    killed = []

    def done(row):
        count = len(parts.done)
        if count >= 10 and not killed:
            killed.append(actors(nodes)[0])
            kill(killed[0])
        if count >= 30 and len(killed) == 1:
            killed.append(second)
            nodes.remove_node(second, allow_graceful=False)

    work = PredictWork(open_session(checkpoint))
    parts = Parts(str(tmp_path / "out.jsonl"), PREDICTIONS[1], job=work.job(), resume=False)
    finished = run_job(work, find_rows([photos]), parts, runner := CountingRunner(), done=done)
    print(runner.attempts)
    assert len(runner.attempts) > 1  # something was lost
    assert len(killed) == 2
    assert (finished.images, finished.failed) == (COUNT + 1, 1)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(map(str, photos.iterdir()))
    local = van.Predictor(checkpoint)
    for row in rows:
        if row["id"].endswith("broken.jpg"):
            assert "cannot be read" in row["reason"]
            continue
        expected = local(row["image"])
        assert row["label"] == expected.label
        assert row["probability"] == pytest.approx(expected.probability, abs=1e-5)


def test_images_stored_in_parquet_are_embedded_on_a_cluster(cluster, photos, checkpoint, tmp_path, capfd):
    files = sorted(photos.glob("0[01]*.jpg"))
    pixels = {"key": [each.stem for each in files], "image": [each.read_bytes() for each in files]}
    pq.write_table(pa.table(pixels), tmp_path / "in.parquet", row_group_size=8)
    out = tmp_path / "out.npy"
    inputs = [str(checkpoint), str(tmp_path / "in.parquet"), "--id-column", "key", "--ray=auto", "--out", str(out)]
    assert main(["embed", *inputs]) == 0
    assert capfd.readouterr().out == f"{out}: {len(files)} of {len(files)} image(s)\n"
    assert json.loads((tmp_path / "out.ids.json").read_text())["ids"] == pixels["key"]
    np.testing.assert_allclose(np.load(out), van.embed(checkpoint, files), rtol=1e-4, atol=1e-5)
