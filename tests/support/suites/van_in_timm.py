"""A pytest plugin for timm's own tests: VAN is registered before they collect the models that they run over."""

import timm
import timm.models

import van

van.register("timm")
OURS = "van.hosts.timm.van"
list_models = timm.list_models


def list_with_ours(filter="", module="", *args, **options):  # noqa: A002  timm's signature
    """timm's `list_models`, in which a choice by files of timm includes VAN's, which is in no file of timm."""
    if isinstance(module, list | tuple):
        return [*list_models(filter, module, *args, **options), *list_models("van_b*", "", *args, **options)]
    return list_models(filter, module, *args, **options)


timm.list_models = timm.models.list_models = list_with_ours
