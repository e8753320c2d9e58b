from typing import Any

from absl import flags
from ml_collections import ConfigDict

def DEFINE_config_dict(
    name: str,
    config: ConfigDict,
    help_string: str = ...,
    flag_values: flags.FlagValues = ...,
    lock_config: bool = ...,
    sys_argv: list[str] | None = ...,
    **kwargs: Any,
) -> flags.FlagHolder: ...
