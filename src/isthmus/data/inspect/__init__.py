"""A first look at a user's table: what each column is, what every domain holds, what may leak."""

from isthmus.data.inspect.inspection import Column, Inspection
from isthmus.data.inspect.judge import inspect_table
from isthmus.data.inspect.look import DomainCounts

__all__ = ["Column", "DomainCounts", "Inspection", "inspect_table"]
