"""The commands that tell of recipes."""

from typing import Annotated

import typer

from isthmus.cli.app import command, recipes_app, show
from isthmus.cli.completing import recipes as known


@command(recipes_app, "list")
def list_recipes() -> None:
    """List the recipes: what each is for, what it costs, and its paper."""
    import isthmus

    show("isthmus fit CONFIG.yaml --recipe NAME; costs are told beside a joint training\n")
    found = isthmus.recipes()
    width = max(len(one.name) for one in found) + 2
    for one in found:
        show(f"{one.name:<{width}}{one.head.purpose}")
        show(f"{'':<{width}}costs {one.head.costs}; {one.head.paper}")


@command(recipes_app, "show")
def show_recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=known)],
) -> None:
    """Print a recipe as YAML, with its comments."""
    from isthmus.recipe import recipe_of

    show(str(recipe_of(name)).rstrip())


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """Settings of published systems, for fit, tune and benchmark."""
    if context.invoked_subcommand is None:
        list_recipes()
