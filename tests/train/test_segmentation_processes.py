"""A segmenter in two processes: BatchNorm by every policy, exact validation, resume after the loss of one."""

import pytest
import torch
from chaos import Victim, assert_same, numbers
from safetensors.torch import load_file
from tiny_segmentation import slim_segmentation

from van.data.infinite_sampler import spread
from van.data.scenes import Scenes
from van.inference.evaluate import evaluate
from van.train import run

# A head without random bases, and nothing left to chance that differs between processes.
PLAIN = {
    "model.name": "semantic_fpn_van_b0", "model.ham_channels": None, "model.ham_rank": None, "model.auxiliary": None,
    "model.auxiliary_channels": None, "model.neck_channels": 16, "model.drop_rate": 0.0, "model.drop_path_rate": 0.0,
    "optim.name": "sgd", "optim.lr": 0.01, "trainer.keep": "last",
    "augment.scale": (1.0, 1.0),
}  # fmt: skip
HAM = {"trainer.devices": 2, "trainer.checkpoint_every_steps": 1, "trainer.steps": 6, "data.val_images": 3}
NORM = "model.backbone.stages.0.patch_embed.norm.running_mean"


class Chosen(Scenes):
    """The three pictures that the validations look at."""

    def __init__(self):
        super().__init__("val", size=32)
        self.places = spread(super().__len__(), 3)

    def __len__(self):
        return 3

    def load(self, index):
        return super().load(self.places[index])


def lived(folder, *, ranks, **options):
    recipe = slim_segmentation(folder, **{**PLAIN, "trainer.devices": ranks, **options})
    victim = Victim(recipe, folder, ranks=ranks)
    assert victim.live() == [0] * ranks, victim.said()
    return folder


@pytest.mark.long
def test_two_processes_with_sync_are_one_with_the_whole_batch(tmp_path):
    two = lived(tmp_path / "two", ranks=2, **{"trainer.batch_size": 2})
    one = lived(tmp_path / "one", ranks=1, **{"trainer.batch_size": 4})
    ours, theirs = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    for key, value in ours.items():
        assert torch.allclose(theirs[key].float(), value.float(), rtol=1e-3, atol=1e-4), key
    for a, b in zip(numbers(one), numbers(two), strict=True):
        assert {k: float(v) for k, v in a.items()} == pytest.approx({k: float(b[k]) for k in a}, abs=1e-4)


@pytest.mark.parametrize("policy", ["reduce", "recalibrate", "frozen"])
def test_validation_over_two_processes_is_of_the_model_that_is_written(policy, tmp_path):
    """Three pictures on two processes, and what BatchNorm's policy makes of the statistics of both."""
    options = {"trainer.batch_norm": policy, "data.val_images": 3}
    if policy == "frozen":
        start = run(slim_segmentation(tmp_path / "start", **PLAIN))
        built = dict.fromkeys(
            ("name", "embed_dims", "depths", "mlp_ratios", "channels", "neck_channels", "kernel_size")
        )
        built |= dict.fromkeys(("dilation", "strides", "layer_scale_init", "drop_rate", "drop_path_rate"))
        options |= {f"model.{name}": None for name in built}
        options |= {"model.checkpoint": str(start / "model.safetensors")}
    folder = lived(tmp_path / "run", ranks=2, **options)
    processes = torch.load(folder / "last.ckpt", weights_only=True)["callbacks"]["ProcessState"]["processes"]
    means = [state["buffers"][NORM] for state in processes]
    assert torch.equal(*means)  # after the validation all have the same
    assert means[0].abs().max() > 1e-4
    if policy == "frozen":
        before = load_file(start / "model.safetensors")
        assert torch.equal(means[0], before[NORM.removeprefix("model.")])
        return
    result = evaluate(folder / "model.safetensors", Chosen())
    row = numbers(folder)[-1]
    assert float(row["val/mIoU"]) == pytest.approx(result["mIoU"], abs=1e-6)
    assert result.matrix.pixels == 3 * 32 * 32


@pytest.mark.long
def test_a_lost_process_and_random_bases(tmp_path):
    """Each process draws NMF bases of its own, and goes on with them."""
    whole, cut = (Victim(slim_segmentation(tmp_path / name, **HAM), tmp_path / name, ranks=2) for name in ("a", "b"))
    assert whole.live() == [0, 0], whole.said()
    assert cut.live(("kill", "rename", 3)) == [-9, 69], cut.said(1)
    assert cut.live() == [0, 0], cut.said()
    assert_same(whole.folder, cut.folder)
