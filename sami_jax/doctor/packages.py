"""The packages that sami_jax needs and those of its extras, by what its own installed metadata asks for."""

import importlib.metadata
import platform
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from sami_jax.doctor.finding import MISSING, NOTE, Finding

PACKAGE = "sami_jax"
# Shown with their versions even where they are as asked; others only where they are not.
NAMED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "ml_collections",
         "libtpu", "jax-cuda13-plugin", "jax-cuda12-plugin")  # fmt: skip
# What an extra is for; `dev` is for those who change sami_jax, and not looked at.
EXTRAS = {
    "tpu": "running on TPUs, and planning for them",
    "plan-gpu": "planning for NVIDIA GPUs, without one",
    "cuda": "running on NVIDIA GPUs, as cuda13",
    "cuda12": "running on NVIDIA GPUs, driver 525 or newer",
    "cuda13": "running on NVIDIA GPUs, driver 580 or newer",
    "k8s": "many processes in Kubernetes, without TPUs",
    "openai": "writers and judges behind a server",
    "hub": "queries from hub datasets, CSV and Parquet",
    "gguf": "models in GGUF files",
    "desk": "pages to decide about principles, rate pairs, follow runs",
    "wandb": "scalars to Weights & Biases",
    "mlflow": "scalars to MLflow",
    "docs": "the documentation's site",
}


def installed() -> list[Finding]:
    """Python, the packages, and the extras."""
    try:
        metadata = importlib.metadata.metadata(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        advice = "pip install . in its folder; what it needs is not known before"
        return [_python(""), Finding(PACKAGE, "not installed", MISSING, advice)]
    needed = [Requirement(line) for line in importlib.metadata.requires(PACKAGE) or []]
    findings = [_python(metadata["Requires-Python"] or ""), Finding(PACKAGE, metadata["Version"])]
    findings += [Finding(name, version) for name in NAMED if (version := _version(name))]
    for requirement in _of_extra(needed, ""):
        for wrong in _unmet(requirement):
            found = _version(wrong.name) or "not installed"
            findings = [finding for finding in findings if finding.about != wrong.name]
            findings.append(Finding(wrong.name, found, MISSING, f"pip install '{wrong.name}{wrong.specifier}'"))
    return findings + [_extra(name, _of_extra(needed, name)) for name in EXTRAS]


def _python(wanted: str) -> Finding:
    version = platform.python_version()
    if version in SpecifierSet(wanted):
        return Finding("python", version)
    return Finding("python", version, MISSING, f"install Python {wanted}")


def _extra(name: str, requirements: list[Requirement]) -> Finding:
    wrong = [unmet.name for requirement in requirements for unmet in _unmet(requirement)]
    about = f"extra {name}"
    if not wrong:
        return Finding(about, "installed")
    advice = f"for {EXTRAS[name]}: pip install '{PACKAGE}[{name}]'"
    return Finding(about, f"without {', '.join(dict.fromkeys(wrong))}", NOTE, advice)


def _of_extra(requirements: list[Requirement], extra: str) -> list[Requirement]:
    """Those of an extra, or with "" those that are always needed, on this machine."""

    def holds(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    return [one for one in requirements if holds(one, extra) and (not extra or not holds(one, ""))]


def _unmet(requirement: Requirement) -> Iterator[Requirement]:
    """What is not installed of a requirement and of the extras it names, or in a version that will not do."""
    version = _version(requirement.name)
    if version is None or not requirement.specifier.contains(version, prereleases=True):
        yield requirement
        return
    further = [Requirement(line) for line in importlib.metadata.requires(requirement.name) or []]
    for extra in requirement.extras:
        for one in _of_extra(further, extra):
            yield from _unmet(one)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
