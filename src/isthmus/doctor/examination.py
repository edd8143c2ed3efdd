"""The examination: every finding with what is wrong and how to mend it."""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isthmus.doctor.installed import OF_DEVELOPERS, Asked, asked, version_of
from isthmus.doctor.machine import NVIDIA, cores, free_bytes, granted, why_not_writable
from isthmus.doctor.probing import Probed, probe
from isthmus.version import VERSION

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that are tested
LITTLE = 10**9  # bytes of free disk that are few


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    ``part``: packages, extras, machine or disk. ``told``: what was found. ``trouble``: what is wrong, empty
    where nothing is. ``mend``: what to do. ``broken``: whether what was chosen cannot work.
    """

    part: str
    name: str
    told: str
    trouble: str = ""
    mend: str = ""
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Examination:
    """All findings. ``print`` shows them, `to_dict` gives the JSON."""

    findings: tuple[Finding, ...]

    @property
    def is_broken(self) -> bool:
        """Whether something that was chosen cannot work."""
        return any(finding.broken for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "isthmus": VERSION,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "broken": self.is_broken,
            "findings": [asdict(finding) for finding in self.findings],
        }

    def __str__(self) -> str:
        lines = [f"isthmus {VERSION}, Python {platform.python_version()}, {platform.platform()}"]
        width = max(len(finding.name) for finding in self.findings) + 2
        part = ""
        for one in self.findings:
            if one.part != part:
                part = one.part
                lines += ["", part]
            lines.append(f"  {one.name:<{width}}{one.told}".rstrip())
        troubles = [finding for finding in self.findings if finding.trouble]
        lines += ["", "nothing is wrong" if not troubles else "what is wrong"]
        for one in troubles:
            lines.append(f"  {one.name}: {'broken: ' if one.broken else ''}{one.trouble}")
            lines.append(f"    mend: {one.mend}")
        return "\n".join(lines)


def examine() -> Examination:
    """Look at packages, extras, machine and disk. All imports happen in another process."""
    packages = asked()
    own = [one for one in packages if not one.extra]
    extras: dict[str, list[Asked]] = {}
    for one in packages:
        if one.extra and one.extra not in OF_DEVELOPERS:
            extras.setdefault(one.extra, []).append(one)
    chosen = [one for group in extras.values() if all(m.version for m in group) for one in group]
    modules = dict.fromkeys(one.module for one in [*own, *chosen] if one.version)
    probed = probe(list(modules))
    return Examination(
        (
            *_of_python(),
            *_of_packages(own, probed),
            *(_of_extra(name, group, probed) for name, group in extras.items()),
            *_of_fbgemm(probed),
            *_of_machine(probed),
            *_of_disk(probed),
        )
    )


def _of_python() -> Iterator[Finding]:
    low, high = PYTHONS
    here = sys.version_info[:2]
    trouble = "" if low <= here <= high else f"{here[0]}.{here[1]} is not tested"
    between = f"{low[0]}.{low[1]} to {high[0]}.{high[1]}"
    told = platform.python_version()
    yield Finding("packages", "Python", told, trouble, f"use Python {between}")


def _of_packages(own: Sequence[Asked], probed: Probed) -> Iterator[Finding]:
    if not own:
        trouble = "isthmus itself is not installed, so nothing says what it needs"
        yield Finding("packages", "isthmus", "not installed", trouble, "pip install isthmus", True)
    for one in own:
        trouble = _trouble(one, probed)
        mend = f"pip install '{one.name}{one.bounds}'"
        told = one.version or "not installed"
        yield Finding("packages", one.name, told, trouble, mend, bool(trouble))
    if own and "isthmus" in probed.faults:
        trouble = f"cannot be imported: {probed.faults['isthmus']}"
        mend = "mend the packages above, or install isthmus again"
        yield Finding("packages", "isthmus", VERSION, trouble, mend, broken=True)


def _trouble(one: Asked, probed: Probed) -> str:
    if not one.version:
        return f"{one.name}{one.bounds} is needed and not installed"
    if one.is_too_old:
        return f"{one.name} must be {one.bounds}, got {one.version}"
    fault = probed.faults.get(one.module, "")
    return f"{one.name} {one.version} cannot be imported: {fault}" if fault else ""


def _of_extra(name: str, group: Sequence[Asked], probed: Probed) -> Finding:
    """An extra counts as chosen where all that it brings is installed."""
    install = f"pip install 'isthmus[{name}]'"
    missing = [one.name for one in group if not one.version]
    if missing:
        part = "" if len(missing) == len(group) else f", {', '.join(missing)} missing"
        return Finding("extras", name, f"not installed{part} ({install})")
    troubles = [told for one in group if (told := _trouble(one, probed))]
    versions = ", ".join(f"{one.name} {one.version}" for one in group)
    told = f"{'does not work' if troubles else 'works'}: {versions}"
    return Finding("extras", name, told, "; ".join(troubles), install, bool(troubles))


def _of_fbgemm(probed: Probed) -> Iterator[Finding]:
    there = [name for name in probed.facts.get("fbgemm", ()) if version_of(name)]
    if not there:
        return
    told = ", ".join(f"{name} {version_of(name)}" for name in there)
    trouble, mend = "", ""
    if len(there) > 1:
        trouble = "several packages fill the one folder fbgemm_gpu, and the later broke the earlier"
        mend = f"pip uninstall {' '.join(there)}, then install one of them with --no-deps"
    elif there == ["fbgemm-gpu"] and not probed.facts["cuda"]:
        trouble = "the CUDA build of fbgemm cannot work with a CPU build of torch"
        mend = "pip uninstall fbgemm-gpu, then pip install --no-deps fbgemm-gpu-cpu"
    yield Finding("extras", "fbgemm", told, trouble, mend, bool(trouble))


def _of_machine(probed: Probed) -> Iterator[Finding]:
    facts, here, limit = probed.facts, cores(), granted()
    told = f"{here} of {os.cpu_count()}"
    if limit is not None:
        told += f", of which this container grants {limit:g}"
    yield Finding("machine", "cores", told)
    if not facts:
        return
    asked_for = os.environ.get("OMP_NUM_THREADS", "")
    told = f"{facts['threads']}" + (f" (OMP_NUM_THREADS={asked_for})" if asked_for else "")
    most = here if limit is None else max(1, min(here, int(limit)))
    trouble = ""
    if asked_for and not asked_for.replace(",", "").isdigit():
        trouble = f"OMP_NUM_THREADS must be a whole number, got {asked_for!r}, which is ignored"
    elif facts["threads"] > most:
        trouble = f"{facts['threads']} threads share {most} cores, and wait for each other"
    yield Finding("machine", "threads", told, trouble, f"export OMP_NUM_THREADS={most}")
    gpus = [f"{gpu['name']}, {gpu['bytes'] / 2**30:.0f} GiB" for gpu in facts["gpus"]]
    trouble, mend = "", ""
    if not gpus and NVIDIA.exists():
        build = f"for CUDA {facts['cuda']}" if facts["cuda"] else "without CUDA"
        trouble = f"there is an NVIDIA driver, but torch, built {build}, finds no GPU"
        mend = "install a torch for the CUDA of the driver, and look at CUDA_VISIBLE_DEVICES"
    yield Finding("machine", "GPU", "; ".join(gpus) or "none", trouble, mend)


def _of_disk(probed: Probed) -> Iterator[Finding]:
    places = {"temporary files": Path(tempfile.gettempdir())}
    if probed.facts:
        places = {"cache": Path(probed.facts["cache"]), **places}
    for name, folder in places.items():
        fault, free = why_not_writable(folder), free_bytes(folder)
        told = f"{folder}, {free / 1e9:.1f} GB free"
        if name == "cache":
            of = probed.facts
            told = f"{told}, {of['tables']} encoded tables, {of['bytes'] / 1e6:.1f} MB"
        variable = "ISTHMUS_CACHE" if name == "cache" else "TMPDIR"
        mend = f"set {variable} to a folder that can be written"
        if fault:
            yield Finding("disk", name, told, f"{folder} cannot be written: {fault}", mend, True)
            continue
        trouble = f"{free / 1e6:.0f} MB are free" if free < LITTLE else ""
        mend = "isthmus cache clear" if name == "cache" else mend
        yield Finding("disk", name, told, trouble, mend)
