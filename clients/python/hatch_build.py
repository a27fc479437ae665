"""The build's hook: generated code goes into wheels and source distributions, the protocol into the latter."""

import importlib.util
import pathlib
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Generate(BuildHookInterface[Any]):
    """Runs generate.py before each build, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes what git ignores."""
        path = pathlib.Path(self.root) / "generate.py"
        spec = importlib.util.spec_from_file_location("generate", path)
        assert spec is not None
        assert spec.loader is not None
        generate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(generate)
        generate.generate()
        if self.target_name == "sdist":
            proto = generate.proto_folder()
            if proto.parent != path.parent:
                build_data["force_include"][str(proto)] = "proto"
