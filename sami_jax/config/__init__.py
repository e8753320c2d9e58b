"""The settings of a run, the check of them, and the files that hold them."""

from sami_jax.config.file import derived_from as derived_from
from sami_jax.config.file import load_config as load_config
from sami_jax.config.settings import REFUSALS as REFUSALS
from sami_jax.config.settings import SYSTEM as SYSTEM
from sami_jax.config.settings import config_folder as config_folder
from sami_jax.config.settings import defaults as defaults
from sami_jax.config.settings import iterations as iterations
from sami_jax.config.settings import paper_training as paper_training
from sami_jax.config.settings import shipped as shipped
from sami_jax.config.settings import shrink as shrink
from sami_jax.config.settings import wants_smoke as wants_smoke
