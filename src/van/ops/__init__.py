"""The primitives of large kernel attention, each behind one function; the device decides how it is computed.

| device | depthwise_conv2d |
|---|---|
| CPU, padding wider than 6 | pad first, convolve without padding: oneDNN's depthwise kernel refuses wide padding and falls to a path 5-20x slower |
| everything else, and while exporting | one library convolution |
"""

from .depthwise import depthwise_conv2d, large_kernel_attention

__all__ = ["depthwise_conv2d", "large_kernel_attention"]
