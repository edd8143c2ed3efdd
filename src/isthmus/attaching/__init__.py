"""Attaching: an adapter in a network that nobody here wrote."""

from isthmus.attaching.adapter_file import load_adapters, save_adapters
from isthmus.attaching.attach import attach, detach
from isthmus.attaching.attachment import Attachment
from isthmus.attaching.found_sites import FoundSite, FoundSites, sites_of
from isthmus.attaching.merging import merge_adapters
from isthmus.attaching.picked import Place

__all__ = [
    "Attachment",
    "FoundSite",
    "FoundSites",
    "Place",
    "attach",
    "detach",
    "load_adapters",
    "merge_adapters",
    "save_adapters",
    "sites_of",
]
