"""Families: members of one kind that a config chooses by ``name``.

A member is a config class; the class stands in one file beside the part that it builds:

    class FilmConfig(AbstractAdapterConfig):
        name: Literal["film"] = "film"
        ...

    AdapterConfig = Annotated[NoAdapterConfig | HamurConfig | FilmConfig, Family("isthmus.adapters")]

``AdapterConfig`` is then a type for a field: a union discriminated by ``name``. Another package adds
a member by an entry point of the family's group; the entry point bears the member's name:

    [project.entry-points."isthmus.adapters"]
    shift = "my_package.shift:ShiftConfig"

Entry points are read when the first config is checked, not at import: so the other package may import
whatever it needs from this one.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, get_args

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from isthmus.errors import ConfigError
from isthmus.schema import Section


class Member(Section):
    """The config of one member of a family. A member narrows ``name`` to one word and adds ``build``.

    ``unsound``: the reason not to serve what was trained with this member; None where there is none.
    """

    unsound: ClassVar[str | None] = None

    name: Any  # the first key of every member, which narrows it to one word


@dataclass(frozen=True, slots=True)
class Family:
    """The mark of a family in its union's type. ``group``: the group of its entry points."""

    group: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A union discriminated by ``name``, of the members in ``source`` and those registered."""
        choices = {
            name: handler.generate_schema(member)
            for name, member in _members(self.group, source).items()
        }
        return core_schema.tagged_union_schema(choices, discriminator="name")


def members(family: Any) -> dict[str, type[Member]]:
    """The config classes of a family by name, ours first; ``family``: such as ``AdapterConfig``.

    Raises ConfigError where a registered member cannot be loaded, or is no member of that name.
    """
    source, *marks = get_args(family)
    (mark,) = (mark for mark in marks if isinstance(mark, Family))
    return _members(mark.group, source)


@cache
def _members(group: str, source: Any) -> dict[str, type[Member]]:
    own = {name_of(member): member for member in get_args(source) or (source,)}
    for entry in entry_points(group=group):
        if entry.name in own:
            raise ConfigError(
                f"{_told(entry)} must have a name of its own, got {entry.name!r} a second time"
            )
        own[entry.name] = _loaded(entry)
    return own


def _loaded(entry: EntryPoint) -> type[Member]:
    try:
        member = entry.load()
    except (ImportError, AttributeError) as fault:
        raise ConfigError(f"{_told(entry)} must be importable, got: {fault}") from fault
    if not (isinstance(member, type) and issubclass(member, Member)):
        raise ConfigError(f"{_told(entry)} must be a config class of a member, got {member!r}")
    if name_of(member) != entry.name:
        raise ConfigError(
            f"{_told(entry)} must bear the name of its config, {name_of(member)!r},"
            f" got {entry.name!r}"
        )
    return member


def name_of(member: type[Member]) -> str:
    """The word that chooses a member in a config."""
    field = member.model_fields.get("name")
    return "" if field is None else str(field.default)


def _told(entry: EntryPoint) -> str:
    package = "" if entry.dist is None else f" of package {entry.dist.name}"
    return f"entry point {entry.name!r}{package} in group {entry.group!r}"
