"""What W&B keeps of an offline run, read from its file: a log of records as LevelDB writes one.

The file begins with 7 bytes of W&B's own. A block has 32 KiB, and a record in it a head of checksum,
length and type: 1 for a whole one, 2, 3 and 4 for first, middle and last part of one.
"""

import json
import struct
import time
from pathlib import Path
from typing import Any

HEAD, BLOCK = 7, 32 * 1024


def records(file: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    data, at, found, part = file.read_bytes(), HEAD, [], b""
    while at + HEAD <= len(data):
        if BLOCK - at % BLOCK < HEAD:  # the rest of a block is empty
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEAD])
        part += data[at + HEAD : at + HEAD + length]
        at += HEAD + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(part)
            found.append(record)
            part = b""
    return found


def kept(run: Path, *, patience: float = 30) -> dict[str, Any]:
    """Config, rows of numbers, names of artefacts with their files, and exit code of an offline run.

    W&B's own process writes the exit code, perhaps after the run has ended here.
    """
    (file,) = run.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + patience
    while (told := _told(file))["exit"] is None and time.monotonic() < until:
        time.sleep(0.1)
    return told


def _told(file: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"config": {}, "rows": [], "artefacts": {}, "exit": None}
    for record in records(file):
        match record.WhichOneof("record_type"):
            case "run":
                told["run"] = record.run
                for item in record.run.config.update:
                    told["config"][item.key or item.nested_key[0]] = json.loads(item.value_json)
            case "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                told["rows"].append(row)
            case "request":
                artefact = record.request.log_artifact.artifact
                if artefact.name:
                    files = [one.path for one in artefact.manifest.contents]
                    told["artefacts"][artefact.name] = (artefact.type, files)
            case "artifact":
                files = [one.path for one in record.artifact.manifest.contents]
                told["artefacts"][record.artifact.name] = (record.artifact.type, files)
            case "exit":
                told["exit"] = record.exit.exit_code
    return told
