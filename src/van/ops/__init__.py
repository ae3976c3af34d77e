"""The primitives of large kernel attention, each behind one function; the device decides how it is computed.

| device | function | how |
|---|---|---|
| CPU | depthwise_conv2d, padding wider than 6 | pad first, convolve without padding: oneDNN's depthwise kernel refuses wide padding and the library falls to a path 5-20x slower |
| CPU | fast_layout | channels_last: oneDNN's 1x1 convolutions need no copies in it; 1.1-2.6x over the whole network |
| everything else, and while exporting | both | one library convolution; the layout as it came |
"""  # noqa: E501

from .block import PackedBlock, block_kernel_serves, folded_block, pack_block
from .depthwise import depthwise_conv2d, depthwise_gelu, depthwise_pair
from .layout import fast_layout

__all__ = [
    "PackedBlock",
    "block_kernel_serves",
    "depthwise_conv2d",
    "depthwise_gelu",
    "depthwise_pair",
    "fast_layout",
    "folded_block",
    "pack_block",
]
