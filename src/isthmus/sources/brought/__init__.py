"""Public data sets whose files a user downloads by hand and brings."""

from isthmus.sources.brought.ali_ccp import ali_ccp
from isthmus.sources.brought.amazon import amazon
from isthmus.sources.brought.douban import douban
from isthmus.sources.brought.kuairand import kuairand
from isthmus.sources.brought.mind import mind

__all__ = ["ali_ccp", "amazon", "douban", "kuairand", "mind"]
