"""The commands that tell of recipes."""

from typing import Annotated

import typer

from isthmus.cli.app import command, recipes_app, show


@command(recipes_app, "list")
def list_recipes() -> None:
    """List the recipes: what each is for, what it costs, and its paper."""
    import isthmus
    from isthmus.metrics.text_table import TextTable

    rows = [
        (one.name, one.head.purpose, one.head.costs, one.head.paper) for one in isthmus.recipes()
    ]
    header = ("recipe", "for", "costs, beside a joint training", "paper")
    title = "isthmus fit CONFIG.yaml --recipe NAME"
    show(TextTable(title=title, header=header, rows=tuple(rows), left=(0, 1, 2, 3)))


@command(recipes_app, "show")
def show_recipe(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Print a recipe as YAML, with its comments."""
    from isthmus.recipe import recipe_of

    show(str(recipe_of(name)).rstrip())


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """Settings of published systems, for fit, tune and benchmark."""
    if context.invoked_subcommand is None:
        list_recipes()
