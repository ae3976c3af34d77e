"""Our operators need PyTorch's compiler only once somebody compiles."""

import json
import subprocess
import sys

import pytest
import torch

from van.ops import depthwise
from van.ops.operators import constant_in_graphs

RUN = """
import json, sys, torch
import van.ops.depthwise as ops
x, weight = torch.randn(1, 8, 6, 6), torch.randn(8, 1, 3, 3)
with torch.no_grad():
    first = ops.kernel.depthwise(x, weight, None, 1, False) if ops.library().handle else ops.reference.convolve(
        x, weight, None, 1
    )
before = "torch._dynamo" in sys.modules
"""
COMPILED = """
net = torch.compile(lambda x: ops.depthwise_conv2d(x, weight, None) + 1, backend="eager", fullgraph=True)
with torch.no_grad():
    compiled, again = net(x) - 1, ops.depthwise_conv2d(x, weight, None)
same = torch.allclose(compiled, first, atol=1e-5) and torch.allclose(again, first, atol=1e-5)
print(json.dumps([before, "torch._dynamo" in sys.modules, same]))
"""


def in_a_process(code):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


@pytest.mark.long
def test_the_compiler_is_imported_where_something_is_compiled():
    assert in_a_process(RUN + COMPILED) == [False, True, True]


def test_constants_are_marked_as_pytorch_marks_them():
    def theirs():
        return 1

    def ours():
        return 1

    torch.compiler.assume_constant_result(theirs)
    assert constant_in_graphs(ours) is ours
    assert vars(ours) == vars(theirs)
    assert depthwise._taken._dynamo_marked_constant
