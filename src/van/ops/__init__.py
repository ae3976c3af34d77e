"""The primitives of large kernel attention, each behind one function; the device decides how it is computed.

| where | function | how |
|---|---|---|
| CPU, float32 | depthwise_conv2d, depthwise_gelu, depthwise_pair | the C kernel (csrc/): forward, and every gradient |
| CPU, float32 | chunked_feed_forward | the C kernel, some images and channels at a time: forward, every gradient |
| CPU, float32, gradients | attention | the C kernel, with layer scale and shortcuts: forward, every gradient |
| CPU, float32, halves, no gradients | folded_stages, folded_patch | the C kernel: folded stages in one call |
| CPU, no gradients | joined_conv2d | the heads' convolutions: fewer products, and those at the maps' own sizes |
| CPU, no gradients | factorise | the C kernel in float32, otherwise products in place |
| CPU, no gradients | normalised_bases | GroupNorm of a product from its factors |
| CPU otherwise | the same | library convolutions; padding wider than 6 comes first, oneDNN refuses it |
| CPU | pointwise_conv2d | a matrix product on channels_last memory: no layout changes, forward and backward |
| CPU | fast_layout | channels_last: 1x1 convolutions need no copies in it; 1.1-2.6x over the whole network |
| CUDA, float32, halves | depthwise_conv2d, depthwise_gelu, depthwise_pair | Triton kernels, with every gradient |
| CUDA, halves | pointwise_conv2d | a matrix product on channels_last memory |
| CUDA, halves, training | depthwise_gelu_project | the same two; GELU's result is computed again, not kept |
| CUDA, float32, halves | fast_layout | channels_last |
| other devices and types, exports | all | library convolutions with the padding inside; the layout as it came |

Halves are bfloat16 and float16. The C kernel is compiled when it is first needed (c_library.py); without a compiler the
CPU takes the library's convolutions; and so it does by each path that its family of processors was not measured to
gain by (measured.py, selection.py). Triton's are checked by a small computation when a GPU first needs them
(cuda_depthwise.py); without Triton, on GPUs before Ampere, or where that check fails, the GPU takes the library's
convolutions. So do both with VAN_OPS=plain. `van info --ops` shows which it is and why.
"""

from .attend import attention, can_attend
from .chunked import can_chunk, chunked_feed_forward
from .depthwise import depthwise_conv2d, depthwise_gelu, depthwise_pair, has_kernel, without_kernels
from .factorisation import factorise, normalised_bases
from .folded_block import (
    PackedBlocks,
    PackedPatch,
    PackedStages,
    accepts,
    channel_norm,
    folded_blocks,
    folded_patch,
    folded_stages,
    has_block_kernel,
    pack_block,
    pack_norm,
    pack_patch,
    product_type,
)
from .joined import can_factorise, can_join, joined_conv2d
from .layout import fast_layout
from .operators import postpone_compiler
from .pointwise import Pointwise, pointwise_conv2d
from .recompute import depthwise_gelu_project, should_recompute
from .reference import Conv
from .report import report
from .selection import path_taken, taking
from .tensors import ordinary

__all__ = [
    "Conv",
    "PackedBlocks",
    "PackedPatch",
    "PackedStages",
    "Pointwise",
    "accepts",
    "attention",
    "can_attend",
    "can_chunk",
    "can_factorise",
    "can_join",
    "channel_norm",
    "chunked_feed_forward",
    "depthwise_conv2d",
    "depthwise_gelu",
    "depthwise_gelu_project",
    "depthwise_pair",
    "factorise",
    "fast_layout",
    "folded_blocks",
    "folded_patch",
    "folded_stages",
    "has_block_kernel",
    "has_kernel",
    "joined_conv2d",
    "normalised_bases",
    "ordinary",
    "pack_block",
    "pack_norm",
    "pack_patch",
    "path_taken",
    "pointwise_conv2d",
    "product_type",
    "report",
    "should_recompute",
    "taking",
    "without_kernels",
]

postpone_compiler("van")
