"""What is known of one published weight file. Pure data, stdlib only."""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One published weight file.

    name: this table's own, "publisher/model". model: the name `create_model` knows, "van_custom" for any other size.
    kind: where it is: "hub" (a repository of the Hugging Face hub), "url" (a direct download), "google-drive" (behind
        Google Drive's page, which asks before it hands out a large file) or "unlinked" (scores were published, a file
        was not).
    repo, filename: of the hub; filename alone: what the publisher calls the file. url, mirrors: links as published.
    revision: commit of the repository that is meant; None: its main branch, as no commit is known.
    format: as in `van.checkpoints.Checkpoint`. dataset: "in1k", "in21k" or "ade20k", what it was trained on last;
        "none" for random weights.
    num_classes: 0 for a backbone without a head, None when unknown.
    sha256: of the file, whole or its first digits; None when unknown. bytes: its size; None when unknown.
    licence, licence_from: its text in short, and who states it.
    top1, top5, miou: published scores in percent; score_from: where, on what.
    preprocess: name of a record in `van.images.preprocess`, in lower case ("official" or "imagenet").
    layer_norm_eps: of its lineage. note: what else there is to know. erratum: what its publisher got wrong.
    labels: on the photographs that come with scikit-learn, (file name, class number, score 0 … 1) each; empty as long
        as nobody has run the file.
    """

    name: str
    model: str
    kind: str
    format: str
    dataset: str
    num_classes: int | None
    licence: str
    licence_from: str
    preprocess: str
    layer_norm_eps: float
    task: str = "classification"
    repo: str | None = None
    revision: str | None = None
    filename: str | None = None
    url: str | None = None
    mirrors: tuple[str, ...] = ()
    sha256: str | None = None
    bytes: int | None = None
    top1: float | None = None
    top5: float | None = None
    miou: float | None = None
    score_from: str | None = None
    note: str = ""
    erratum: str = ""
    labels: tuple[tuple[str, int, float], ...] = ()

    @property
    def source(self) -> str | None:
        """One line that says where the file is: `hub:org/name/file` or the link; None without one."""
        if self.repo:
            return f"hub:{self.repo}" + (f"/{self.filename}" if self.filename else "")
        return self.url

    @property
    def link(self) -> str | None:
        """The address of the file, or of the repository's page where several files are needed; None without one."""
        if self.repo is None:
            return self.url
        if self.filename is not None:
            return f"{HUB}/{self.repo}/resolve/{self.revision or 'main'}/{self.filename}"
        return f"{HUB}/{self.repo}" + (f"/tree/{self.revision}" if self.revision else "")

    @property
    def scores(self) -> str:
        """`75.41 / 93.02` (top-1 / top-5) or `mIoU 41.1`; '' when none was published."""
        if self.miou is not None:
            return f"mIoU {self.miou:g}"
        return " / ".join(f"{score:g}" for score in (self.top1, self.top5) if score is not None)
