"""The primitives of large kernel attention, each behind one function; the device decides how it is computed.

| device | function | how |
|---|---|---|
| CPU | depthwise_conv2d, padding wider than 6 | pad first, convolve without padding: oneDNN's depthwise kernel refuses wide padding and the library falls to a path 5-20x slower |
| CPU | fast_layout | channels_last: oneDNN's 1x1 convolutions need no copies in it; 1.1-2.6x over the whole network |
| everything else, and while exporting | both | one library convolution; the layout as it came |
"""  # noqa: E501

from .depthwise import depthwise_conv2d
from .layout import fast_layout

__all__ = ["depthwise_conv2d", "fast_layout"]
