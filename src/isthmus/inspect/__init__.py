"""A first look at a user's table: what each column is, what every domain holds, what may leak."""

from isthmus.inspect.inspection import Column, Inspection
from isthmus.inspect.judge import inspect_table
from isthmus.inspect.look import DomainCounts

__all__ = ["Column", "DomainCounts", "Inspection", "inspect_table"]
