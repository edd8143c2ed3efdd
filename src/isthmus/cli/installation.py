"""The command that looks at the installation and the machine."""

import typer

from isthmus.cli.app import JsonTarget, app, command, deliver

UNSOUND = 1  # exit code where something that was chosen cannot work


@command(app, "doctor")
def doctor(json_target: JsonTarget = None) -> None:
    """Tell what is installed, what of it works, and how to mend what does not; exit code 1 where something is broken."""
    from isthmus.doctor import examine

    found = examine()
    deliver(found, found.to_dict(), json_target)
    if found.is_broken:
        raise typer.Exit(UNSOUND)
