"""docs/migration.md: every flag of the published scripts is there, and every key it names exists."""

import re
from pathlib import Path

import pytest

from van.cli import eval as eval_verb
from van.cli import train as train_verb
from van.cli.parser import Parser
from van.recipes import Recipe

TEXT = (Path(__file__).parent.parent.parent / "docs" / "migration.md").read_text()

# Flags as the scripts declare them (VAN-Classification at d025a72, VAN-Segmentation at 23cd0ed).
TRAIN = """
-c --config data_dir --dataset -d --train-split --val-split --dataset-download --class-map --model
--pretrained --initial-checkpoint --resume --no-resume-opt --num-classes --gp --img-size --input-size
--crop-pct --mean --std --interpolation -b --batch-size -vb --validation-batch-size --opt --opt-eps
--opt-betas --momentum --weight-decay --clip-grad --clip-mode --sched --lr --lr-noise --lr-noise-pct
--lr-noise-std --lr-cycle-mul --lr-cycle-decay --lr-cycle-limit --lr-k-decay --warmup-lr --min-lr --epochs
--epoch-repeats --start-epoch --decay-epochs --warmup-epochs --cooldown-epochs --patience-epochs --decay-rate
--dr --no-aug --scale --ratio --hflip --vflip --color-jitter --aa --aug-repeats --aug-splits --jsd-loss
--bce-loss --bce-target-thresh --reprob --remode --recount --resplit --mixup --cutmix --cutmix-minmax
--mixup-prob --mixup-switch-prob --mixup-mode --mixup-off-epoch --smoothing --train-interpolation --drop
--drop-connect --drop-path --drop-block --bn-tf --bn-momentum --bn-eps --sync-bn --dist-bn --split-bn
--model-ema --model-ema-force-cpu --model-ema-decay --seed --worker-seeding --log-interval --recovery-interval
--checkpoint-hist -j --workers --save-images --amp --apex-amp --native-amp --no-ddp-bb --channels-last
--pin-mem --no-prefetcher --output --experiment --eval-metric --tta --local_rank --use-multi-epochs-loader
--torchscript --log-wandb
"""
VALIDATE = """
data --dataset -d --split --dataset-download --model -m -j --workers -b --batch-size --img-size --input-size
--crop-pct --mean --std --interpolation --num-classes --class-map --gp --log-freq --checkpoint --pretrained
--num-gpu --test-pool --no-prefetcher --pin-mem --channels-last --amp --apex-amp --native-amp
--tf-preprocessing --use-ema --torchscript --legacy-jit --results-file --real-labels --valid-labels
"""
TEST = """
config checkpoint --aug-test --out --format-only --eval --show --show-dir --gpu-collect --tmpdir --options
--eval-options --launcher --opacity --local_rank
"""


def rows(section):
    """(flags, keys, remark) of a section's table."""
    body = re.split(r"^## ", TEXT, flags=re.MULTILINE)
    part = next(each for each in body if each.startswith(section))
    for line in part.splitlines():
        if line.startswith("| `"):
            flags, keys, remark = (cell.strip() for cell in line.strip("|").split("|"))
            yield re.findall(r"`([^`]+)`", flags), re.findall(r"`([^`]+)`", keys), keys, remark


def known(verb):
    parser = Parser(prog="van", add_help=False)  # `van train` has its own
    verb.add_arguments(parser)
    return {name for action in parser._actions for name in (*action.option_strings, action.dest)}


def train_keys():
    recipe = Recipe().to_dict()
    dotted = {f"{section}.{key}" for section, group in recipe.items() if isinstance(group, dict) for key in group}
    return dotted | {"name"} | known(train_verb)


@pytest.mark.parametrize(
    ("section", "flags"), [("train.py", TRAIN), ("validate.py", VALIDATE), ("test.py of the segmentation", TEST)]
)
def test_every_flag_is_listed_once(section, flags):
    listed = [flag for row in rows(section) for flag in row[0]]
    assert sorted(listed) == sorted(flags.split())


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("train.py", train_keys()),
        ("validate.py", known(eval_verb)),
        ("test.py of the segmentation", known(eval_verb)),
        ("The 22K script", train_keys()),
    ],
)
def test_every_key_exists_and_what_has_none_has_a_reason(section, keys):
    for flags, named, cell, _ in rows(section):
        missing = set(named) - keys
        assert not missing, f"{flags}: no such key: {missing}"
        assert named or cell == "dropped", flags
    assert [1 for *_, cell, remark in rows(section) if cell == "dropped" and remark]


def test_keys_in_remarks_exist():
    keys = train_keys() | known(eval_verb)
    for key in re.findall(r"`((?:augment|data|loss|model|optim|schedule|track|trainer)\.\w+)[ `]", TEXT):
        assert key in keys, key
