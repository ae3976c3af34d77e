"""The engine of torch.export's programs: a file of `van export --format torch` on the CPU."""

from __future__ import annotations

import numpy as np
import torch

from ...errors import UnsafeFileError
from . import written
from .exported_engine import ExportedEngine, broken


class ProgramEngine(ExportedEngine):
    """Runs an exported program of torch (.pt2), operator by operator, with as many threads as torch uses.

    PyTorch's reader runs pickles and expressions that lie in such files. Raises UnsafeFileError for one that this
    machine did not write, unless `trust` says that its author may run programs here.
    """

    runtime = "torch.export"

    def _open(self) -> None:
        with self.path.open("rb") as file:
            if not self.trust and not written.is_ours(file):
                raise UnsafeFileError(
                    f"{self.path} was not exported on this machine, or was changed since; PyTorch runs pickles and "
                    "expressions in such files when it opens them, so nothing was opened: give trust=True (--trust) if "
                    "its author may run programs here, else take the checkpoint, an .onnx or an .xml file"
                )
            try:
                # its guards speak of memory layouts, which change no value
                self.module = torch.export.load(file).module(check_guards=False)
            except Exception as error:
                raise broken(self.path, "an exported program of torch", error) from error

    def _outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = self.module(torch.from_numpy(images))
            named = found if isinstance(found, dict) else {"logits": found}
            return {name: output.float().numpy() for name, output in named.items()}
