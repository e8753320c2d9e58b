"""The embedded default: a tiny pretrained base model, the world it was trained on, and an exact judge of that world.

The folder holds what a user would bring: `base/` (a model in Hugging Face format), `principles/` (one file each) and
`queries/` (train and held out). `world` writes its documents, `judge` reads replies, `recipe` retrains the base; `untrained` makes random models for smoke runs.
"""

from pathlib import Path

FOLDER = Path(__file__).parent
BASE = FOLDER / "base"
PRINCIPLES = FOLDER / "principles"
QUERIES = FOLDER / "queries"
