"""What each path of the CPU kernel was measured to gain on each family of processors; data only.

RATIOS[family][path] is the time of what the path replaces over its own; selection.py takes a path where this is at least 1.
None: nobody measured it. `python benchmarks/cpu_paths.py` measures the rows of the machine it runs on, prints them in the form
that they have here, and says where this table would choose differently. Of each path the smaller ratio of B0 and B1 counts.

"AVX2" is an AVX2 processor, or PyTorch kept to what one has; "AVX2, PyTorch newer" is the kernel with AVX2 beside a PyTorch that
uses AVX-512, as with VAN_OPS=AVX2 on a processor of today.
"""

from __future__ import annotations

# Path -> what it replaces. In training: values and gradients.
REPLACED = {
    "depthwise_conv2d": "library convolution",
    "depthwise_conv2d_training": "library convolution",
    "depthwise_gelu": "library convolution and GELU",
    "depthwise_gelu_training": "library convolution and GELU",
    "depthwise_pair": "library convolutions",
    "depthwise_pair_training": "library convolutions",
    "streamed_feed_forward": "its modules one by one",
    "streamed_feed_forward_training": "its modules one by one",
    "folded_blocks": "its modules one by one",
    "folded_patch": "library convolution",
}
NEWER = ", PyTorch newer"
# Family -> path -> ratio.
RATIOS: dict[str, dict[str, float | None]] = {}
