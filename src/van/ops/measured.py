"""What each path of the CPU kernel was measured to gain on each family of processors; data only.

RATIOS[family][path] is the time of what the path replaces over its own; selection.py takes a path where this is at
least 1. None: nobody measured it. `python benchmarks/cpu_paths.py` measures the rows of the machine it runs on,
prints them in the form that they have here, and says where this table would choose differently. Of each path the
smaller ratio of B0 and B1 counts.

"AVX2" is an AVX2 processor, or PyTorch kept to what one has; "AVX2, PyTorch newer" is the kernel with AVX2 beside a
PyTorch that uses AVX-512, as with VAN_OPS=AVX2 on a processor of today.
"""

from __future__ import annotations

# Path -> what it replaces. In training: values and gradients; of the sliced feed-forward the gradients alone.
REPLACED = {
    "depthwise_conv2d": "library convolution",
    "depthwise_conv2d_training": "library convolution",
    "depthwise_gelu": "library convolution and GELU",
    "depthwise_gelu_training": "library convolution and GELU",
    "depthwise_pair": "library convolutions",
    "depthwise_pair_training": "library convolutions",
    "streamed_feed_forward": "its modules one by one",
    "streamed_feed_forward_training": "its modules one by one",
    "sliced_feed_forward": "products and convolution in turn",
    "sliced_feed_forward_training": "products and convolution in turn",
    "fused_attention_training": "its modules one by one",
    "folded_blocks": "its modules one by one",
    "folded_patch": "library convolution",
    "factorisation": "its products one by one",
}
NEWER = ", PyTorch newer"
# Zen 4, one thread, 2026-11-29. AMX was not on the machine: its vector code is AVX-512's, whose figures it has here;
# its folded blocks are 1.0 to 1.4 times as fast as AVX-512's where both were measured (docs/performance.md).
_AVX512 = {
    "depthwise_conv2d": 0.95,
    "depthwise_conv2d_training": 2.51,
    "depthwise_gelu": 1.34,
    "depthwise_gelu_training": 1.09,
    "depthwise_pair": 1.59,
    "depthwise_pair_training": 5.30,
    "streamed_feed_forward": 1.13,
    "streamed_feed_forward_training": 1.06,
    "sliced_feed_forward": 1.04,
    "sliced_feed_forward_training": 1.09,
    "fused_attention_training": 1.02,
    "folded_blocks": 1.41,
    "folded_patch": 1.24,
    "factorisation": 1.37,
}
BORROWED = {"AMX": "AVX512"}  # family -> whose figures it has
# Family -> path -> ratio.
RATIOS: dict[str, dict[str, float | None]] = {
    "AMX": {**_AVX512},
    "AVX512": {**_AVX512},
    "AVX2": {
        "depthwise_conv2d": 1.14,
        "depthwise_conv2d_training": 1.98,
        "depthwise_gelu": 1.66,
        "depthwise_gelu_training": 1.59,
        "depthwise_pair": 1.87,
        "depthwise_pair_training": 14.14,
        "streamed_feed_forward": 1.13,
        "streamed_feed_forward_training": 1.09,
        "sliced_feed_forward": 0.94,
        "sliced_feed_forward_training": 1.11,
        "fused_attention_training": 1.02,
        "folded_blocks": 1.41,
        "folded_patch": 1.30,
        "factorisation": 1.35,
    },
    "AVX2, PyTorch newer": {
        "depthwise_conv2d": 0.81,
        "depthwise_conv2d_training": 2.55,
        "depthwise_gelu": 1.17,
        "depthwise_gelu_training": 0.98,
        "depthwise_pair": 1.41,
        "depthwise_pair_training": 4.57,
        "streamed_feed_forward": 1.09,
        "streamed_feed_forward_training": 1.10,
        "sliced_feed_forward": 0.99,
        "sliced_feed_forward_training": 1.12,
        "fused_attention_training": 1.05,
        "folded_blocks": 1.34,
        "folded_patch": 1.25,
        "factorisation": 1.35,
    },
    "baseline": {
        "depthwise_conv2d": 0.81,
        "depthwise_conv2d_training": 2.14,
        "depthwise_gelu": 3.56,
        "depthwise_gelu_training": 2.67,
        "depthwise_pair": 1.54,
        "depthwise_pair_training": 9.97,
        "streamed_feed_forward": 1.15,
        "streamed_feed_forward_training": 1.14,
        "sliced_feed_forward": 0.65,
        "sliced_feed_forward_training": 0.75,
        "fused_attention_training": 0.90,
        "folded_blocks": 0.67,
        "folded_patch": 1.77,
        "factorisation": 0.49,
    },
    "baseline, PyTorch newer": {
        "depthwise_conv2d": 0.48,
        "depthwise_conv2d_training": 1.51,
        "depthwise_gelu": 0.52,
        "depthwise_gelu_training": 0.47,
        "depthwise_pair": 0.77,
        "depthwise_pair_training": 3.05,
        "streamed_feed_forward": 0.94,
        "streamed_feed_forward_training": 0.84,
        "sliced_feed_forward": 0.58,
        "sliced_feed_forward_training": 0.72,
        "fused_attention_training": 0.87,
        "folded_blocks": 0.55,
        "folded_patch": 0.45,
        "factorisation": 0.48,
    },
    # Built for it and checked in an emulator, which says nothing about speed.
    "NEON": dict.fromkeys(REPLACED),
}
