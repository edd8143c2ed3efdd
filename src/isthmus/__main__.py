"""The command line as ``python -m isthmus``, which torchrun can start."""

from isthmus.cli import app

if __name__ == "__main__":
    app(prog_name="isthmus")
