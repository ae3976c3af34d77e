"""The engine of torch.export's programs: a file of `van export --format torch` on the CPU."""

from __future__ import annotations

import zipfile

import numpy as np
import torch

from .description import KEY
from .exported import ExportedEngine, broken

EXTRA_FILE = f"{KEY}.json"


class ProgramEngine(ExportedEngine):
    """Runs an exported program of torch (.pt2), operator by operator, with as many threads as torch uses.

    PyTorch's reader of these files trusts them: open those of strangers no more than you would run their programs.
    """

    runtime = "torch.export"

    def _open(self) -> str | None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                extra = [name for name in archive.namelist() if name.endswith(f"extra/{EXTRA_FILE}")]
                text = archive.read(extra[0]).decode() if extra else None
            if text:  # a file that is not ours is refused before PyTorch reads it
                # its guards speak of memory layouts, which change no value
                self.module = torch.export.load(str(self.path)).module(check_guards=False)
        except Exception as error:
            raise broken(self.path, "an exported program of torch", error) from error
        return text

    def _logits(self, images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.module(torch.from_numpy(images)).float().numpy()
