"""segmentation-models-pytorch: its decoders over VAN, which it finds in timm as `tu-van_b0`."""

import pytest
import torch

from van.hosts import register

pytest.importorskip("timm")
smp = pytest.importorskip("segmentation_models_pytorch")
register("segmentation-models-pytorch")

from van.hosts.timm import VisualAttentionNetwork  # noqa: E402

# smp builds `tu-` encoders by name alone, so these are real B0s, on small images.
DECODERS = ["FPN", "UPerNet", "Unet", "Segformer"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_construct_train_save_load_and_infer(decoder, tmp_path):
    torch.manual_seed(0)
    options = {"encoder_name": "tu-van_b0", "encoder_weights": None, "in_channels": 1, "classes": 3}
    model = getattr(smp, decoder)(**options)
    (van,) = (m for m in model.modules() if isinstance(m, VisualAttentionNetwork))
    assert model.encoder.out_channels[-4:] == [32, 64, 160, 256]
    images, truth = torch.randn(2, 1, 64, 64), torch.randint(0, 3, (2, 64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    weight = van.backbone.stages[3].patch_embed.conv.weight
    before = weight.detach().clone()

    logits = model.train()(images)
    torch.nn.functional.cross_entropy(logits, truth).backward()
    optimizer.step()
    assert logits.shape == (2, 3, 64, 64)
    assert all(p.grad is not None for p in van.parameters())
    assert not torch.equal(weight, before)

    model.save_pretrained(tmp_path)
    again = smp.from_pretrained(tmp_path).eval()
    with torch.inference_mode():
        assert torch.equal(again(images), model.eval()(images))


def test_a_decoder_that_wants_output_stride_16_gets_it():
    model = smp.DeepLabV3Plus("tu-van_b0", encoder_weights=None, encoder_output_stride=16).eval()
    with torch.inference_mode():
        assert model.encoder(torch.randn(1, 3, 64, 64))[-1].shape == (1, 256, 4, 4)
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 1, 64, 64)
