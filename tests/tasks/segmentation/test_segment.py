"""Testing a segmenter: the published pipeline in tiles against the same pipeline on whole tensors."""

import numpy as np
import pytest
import torch
from PIL import Image
from segmentation_reference import METHODS, small
from torch import nn
from torch.nn import functional as F

from van.errors import ConfigError, DataError, VanNotice
from van.images.preprocess import IMAGENET
from van.images.resize import resize_bilinear
from van.nn import fold, tiling
from van.nn.hamburger import factorisations
from van.tasks.segmentation import inference as van_inference
from van.tasks.segmentation import views as segment
from van.tasks.segmentation.views import PUBLISHED_SCALES, Inference, confusion, predict_mask, seed_matrices, spread

BANDS = 5 * 97 * 4 * 7  # a few rows of these pictures


def picture(height, width, seed=0):
    """Coloured blobs."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


class Scenes:
    """A tiny SegmentationData."""

    classes = ("a", "b", "c", "d", "e")
    ignore_index = 255

    def __len__(self):
        return 4

    def load(self, i):
        label = np.random.default_rng(i).integers(0, 5, (40, 50 + i)).astype(np.uint8)
        label[:3] = 255
        return picture(40, 50 + i, seed=i), label

    def name(self, i):
        return f"scene/{i}"


# The pipeline once more, on whole tensors, written from the facts.


def plain_resize(pixels, size):
    return (
        torch.from_numpy(resize_bilinear(pixels[0].permute(1, 2, 0).byte().numpy(), size))
        .permute(2, 0, 1)[None]
        .float()
    )


def plain_slide(model, images, window, stride):
    n, _, height, width = images.shape
    total, count = torch.zeros(n, model.num_classes, height, width), torch.zeros(n, 1, height, width)
    for i in range(max(height - window + stride - 1, 0) // stride + 1):
        for j in range(max(width - window + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + window, height), min(j * stride + window, width)
            rows, columns = slice(max(bottom - window, 0), bottom), slice(max(right - window, 0), right)
            total[:, :, rows, columns] += model(images[:, :, rows, columns])
            count[:, :, rows, columns] += 1
    return total / count


def plain_probabilities(model, image, inference):
    height, width = image.height, image.width
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    total = 0
    for scale in inference.scales:
        long, short = (int(side * scale) for side in sorted(inference.resize or (height, width), reverse=True))
        factor = min(long / max(height, width), short / min(height, width))
        size = int(height * factor + 0.5), int(width * factor + 0.5)
        divisor = inference.size_divisor
        seen = plain_resize(plain_resize(pixels, size), tuple(-(-side // divisor) * divisor for side in size))
        for mirrored in (False, True) if inference.flip else (False,):
            images = (seen.flip(3) if mirrored else seen).sub(mean).div(std).to(model.head.classify.conv.weight.dtype)
            logits = (
                plain_slide(model, images, inference.window, inference.stride) if inference.window else model(images)
            )
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            total = total + (logits.softmax(1).flip(3) if mirrored else logits.softmax(1))
    return total[0] / len(inference.views)


PROTOCOLS = {
    "whole": Inference(resize=None, size_divisor=1, band_bytes=BANDS),
    "rounded up": Inference(resize=None, band_bytes=BANDS),
    "resized": Inference(resize=(160, 64), band_bytes=BANDS),
    "six scales and flip": Inference(resize=(128, 64), scales=PUBLISHED_SCALES, flip=True, band_bytes=BANDS),
    "windows": Inference(resize=None, size_divisor=1, window=48, stride=32, band_bytes=BANDS),
    "windows, two scales, flip": Inference(
        resize=(128, 80), scales=(0.5, 1.25), flip=True, window=64, stride=40, band_bytes=BANDS
    ),
    "window larger than the picture": Inference(resize=None, window=512, stride=512, band_bytes=BANDS),
}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("method", ["light_ham", "upernet"])
def test_tiles_give_what_whole_tensors_give(name, method, monkeypatch):
    # the network in float64, so that only the pipeline can differ
    model, image, inference = small(method, seed=3).double(), picture(75, 97), PROTOCOLS[name]
    totals, original = [], segment._total

    def spy(*args):
        totals.append(original(*args))
        return totals[-1].clone()

    monkeypatch.setattr(segment, "_total", spy)
    mask = predict_mask(model, image, inference)
    assert len(totals) > 10
    got = torch.cat(totals, 1)
    with torch.inference_mode():
        expected = plain_probabilities(model, image, inference).float()
    views = len(inference.views)
    torch.testing.assert_close(got / views if views > 1 else got.softmax(0), expected, atol=1e-5, rtol=0)
    assert mask.dtype == np.uint8
    assert len(np.unique(mask)) > 1
    np.testing.assert_array_equal(mask, got.argmax(0))


@pytest.mark.parametrize(
    "sizes", [((16, 16), (128, 128)), ((33, 47), (500, 333)), ((64, 45), (30, 99)), ((9, 9), (9, 9))]
)
def test_resized_rows_equal_interpolate(sizes):
    logits = torch.randn(7, *sizes[0], generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(logits[None], sizes[1], mode="bilinear", align_corners=False)[0]
    rows = tiling.Resized(tiling.WholeLogits(logits), sizes[1])
    for step in (1, 13, 1000):
        got = [rows.rows(start, min(start + step, sizes[1][0])) for start in range(0, sizes[1][0], step)]
        torch.testing.assert_close(torch.cat(got, 1), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (100, 40, 30, [0, 30, 60]),
        (101, 40, 30, [0, 30, 60, 61]),
        (40, 40, 30, [0]),
        (20, 40, 30, [0]),
        (41, 40, 40, [0, 1]),
    ],
)
def test_windows_start_where_mmseg_starts_them(length, window, stride, expected):
    assert tiling.window_starts(length, window, stride) == expected


def test_windows_are_decoded_once_and_only_kept_while_needed():
    decoded, alive = [], []

    def decode(crop):
        decoded.append(tuple(crop.shape))
        return crop.float()

    pixels = torch.rand(3, 200, 90)
    rows = tiling.Sliding(decode, pixels, 40, 20)
    got = []
    for start in range(0, 200, 7):
        got.append(rows.rows(start, min(start + 7, 200)))
        alive.append(len(rows.alive))
    torch.testing.assert_close(torch.cat(got, 1), pixels)
    assert len(decoded) == len(rows.tops) * len(rows.lefts) == 9 * 4
    assert max(alive) <= 3


def test_published_sizes_on_ade20k():
    assert Inference().size(683, 512) == (683, 512)
    assert Inference().size(256, 683) == (512, 1366)
    assert Inference().size(500, 3000) == (341, 2048)
    assert Inference(scales=(1.75,)).size(600, 800, 1.75) == (896, 1195)
    assert Inference(resize=None).size(75, 100, 0.5) == (37, 49)  # 37 / 75 is the smaller factor
    assert Inference(scales=(0.5, 1.0), flip=True).views == ((0.5, False), (0.5, True), (1.0, False), (1.0, True))


def test_pixels_are_stretched_to_the_multiple_and_normalised():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(images)
            return images

    image = Image.new("RGB", (50, 33), (124, 116, 104))
    predict_mask(Spy(), image, Inference(resize=None))
    assert seen[0].shape == (1, 3, 64, 64)  # sides 33 and 50
    expected = (torch.tensor([124, 116, 104]) / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(seen[0], expected[None, :, None, None].expand(1, 3, 64, 64), atol=1e-6, rtol=0)


def test_gray_pictures_and_many_classes():
    model = small("light_ham", in_chans=1, num_classes=300)
    mask = predict_mask(model, picture(40, 50), Inference(resize=None, mean=(0.5,), std=(0.5,)))
    assert mask.dtype == np.uint16
    assert mask.shape == (40, 50)


@pytest.mark.parametrize("method", METHODS)
def test_folded_and_channels_last_predict_alike(method):
    model, image = small(method, seed=1), picture(64, 80)
    inference = Inference(resize=None, flip=True)
    mask = predict_mask(model, image, inference)
    other = predict_mask(fold(model).to(memory_format=torch.channels_last), image, inference)
    assert (mask == other).mean() > 0.999


def test_evaluation_restores_the_mode_of_every_module_and_repeats():
    model = small("light_ham").train()
    model.backbone.freeze(1)
    model.head.eval()
    before = [module.training for module in model.modules()]
    first = confusion(model, Scenes(), inference=Inference(resize=None))
    assert [module.training for module in model.modules()] == before
    np.testing.assert_array_equal(confusion(model, Scenes(), inference=Inference(resize=None)).counts, first.counts)


def test_shards_add_up_to_the_whole():
    model, data, inference = small("light_ham"), Scenes(), Inference(resize=None)
    whole = confusion(model, data, inference=inference)
    parts = [confusion(model, data, inference=inference, indices=range(rank, 4, 2)) for rank in range(2)]
    np.testing.assert_array_equal((parts[0] + parts[1]).counts, whole.counts)
    assert whole.pixels == sum((40 - 3) * (50 + i) for i in range(4))


def test_masks_are_handed_on():
    seen = []
    model, inference = small("light_ham"), Inference(resize=None)
    confusion(model, Scenes(), inference=inference, indices=[2], on_mask=lambda *args: seen.append(args))
    index, image, mask, label = seen[0]
    assert index == 2
    assert mask.shape == label.shape == (image.height, image.width)


def test_spread_over_bases_and_own_bases_back():
    model = small("light_ham")
    own = factorisations(model)[0].bases = torch.rand(1, 32, 4)
    figures = spread(list(seed_matrices(model, Scenes(), seeds=3, inference=Inference(resize=None))))
    assert factorisations(model)[0].bases is own
    runs = [figures[f"mIoU.seed{seed}"] for seed in range(3)]
    assert len(set(runs)) > 1
    assert figures["mIoU"] == pytest.approx(np.mean(runs))
    assert figures["mIoU.std"] == pytest.approx(np.std(runs, ddof=1))
    with pytest.raises(ConfigError, match="no NMF"):
        list(seed_matrices(small("upernet"), Scenes(), seeds=2))


def test_large_pictures_of_unbounded_size_are_cut_and_it_is_said(monkeypatch):
    monkeypatch.setattr(van_inference, "LARGE_WINDOW", 64)
    monkeypatch.setattr(van_inference, "LARGE_STRIDE", 48)
    model, image = small("light_ham"), picture(80, 100)
    limited = Inference(resize=None, whole_limit_pixels=5000)
    with pytest.warns(VanNotice, match="80 x 100 pixels is segmented in windows of 64, one every 48"):
        mask = predict_mask(model, image, limited)
    np.testing.assert_array_equal(mask, predict_mask(model, image, Inference(resize=None, window=64, stride=48)))
    for whole in (
        Inference(resize=(100, 80), whole_limit_pixels=5000),
        Inference(resize=None, whole_limit_pixels=None),
    ):
        assert whole.windows(80, 100) is None
    assert Inference(window=30).windows(80, 100) == (30, 20)


def test_data_that_does_not_fit_is_refused():
    class Odd(Scenes):
        def load(self, i):
            image, label = super().load(i)
            return image, label[:, 1:]

    with pytest.raises(DataError, match=r"scene/0: picture 40 x 50, label map \(40, 49\)"):
        confusion(small("light_ham"), Odd(), inference=Inference(resize=None))
    with pytest.raises(ConfigError, match="the model has 7 classes, the data 5"):
        confusion(small("light_ham", num_classes=7), Scenes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize": (512,)}, "resize is"),
        ({"scales": ()}, "scales is"),
        ({"scales": (0.0,)}, "scales is"),
        ({"window": 0}, "window is 0"),
        ({"stride": 10}, "without a window"),
        ({"window": 64, "stride": 65}, "expected 1 to 64"),
        ({"size_divisor": 0}, "size_divisor is 0"),
        ({"std": (0.2, 0.0, 0.2)}, "std positive"),
        ({"mean": (0.5,)}, "one each"),
        ({"band_bytes": 0}, "band_bytes is 0"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Inference(**options)


@pytest.mark.gpu
def test_masks_on_a_gpu_are_those_of_the_cpu():
    model, image = small("light_ham", seed=1), picture(64, 80)
    inference = Inference(resize=None, scales=(0.75, 1.0), flip=True, window=48, stride=32)
    expected = predict_mask(model, image, inference)
    assert (predict_mask(model.cuda(), image, inference) == expected).mean() > 0.999
