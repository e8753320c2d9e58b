"""The lower bounds of setup.py are the versions that `make test-lowest` installs."""

import runpy
from pathlib import Path
from unittest import mock

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent


def test_each_is_the_version_tested():
    with mock.patch("setuptools.setup") as setup:
        runpy.run_path(str(ROOT / "setup.py"))
    asked = setup.call_args.kwargs
    extras = asked["extras_require"]
    wanted = [
        *asked["install_requires"],
        *(one for name in ("openai", "hub", "gguf", "desk", "wandb", "mlflow") for one in extras[name]),
    ]
    lines = (ROOT / "requirements/lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = {name: Version(version) for name, _, version in (line.partition("==") for line in lines)}
    for requirement in map(Requirement, wanted):
        [bound] = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert tested[canonicalize_name(requirement.name)] == bound, f"{requirement}: `make lowest`, or another bound"
