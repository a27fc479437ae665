"""What holds for all integrations."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import pathlib
import re

import pytest

HERE = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = {
    "pipecat-undertone": "pipecat_undertone",
    "livekit-plugins-undertone": "livekit.plugins.undertone",
    "langchain-undertone": "langchain_undertone",
}


@pytest.mark.parametrize(("package", "module"), PACKAGES.items())
def test_a_package_is_typed_documented_and_of_one_version(package: str, module: str) -> None:
    installed = importlib.import_module(module)
    assert importlib.resources.files(module).joinpath("py.typed").is_file()
    assert importlib.metadata.version(package) == installed.__version__
    readme, changes = ((HERE / package / name).read_text() for name in ("README.md", "CHANGELOG.md"))
    for heading in ("## Start", "## Limits, and what it cannot know", "## Responsible use"):
        assert heading in readme
    assert installed.__version__ == "0.1.0" and "## Unreleased" in changes


@pytest.mark.parametrize("package", PACKAGES)
def test_links_of_a_readme_lead_somewhere(package: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (HERE / package / "README.md").read_text())
    assert links
    for link in links:
        assert (HERE / package / link).resolve().exists(), link


def test_every_option_is_in_the_readme() -> None:
    import inspect

    from livekit.plugins.undertone import EmotionListener
    from pipecat_undertone import EmotionProcessor

    for package, kind in (("pipecat-undertone", EmotionProcessor), ("livekit-plugins-undertone", EmotionListener)):
        readme = (HERE / package / "README.md").read_text()
        for name, parameter in inspect.signature(kind).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                assert f"`{name}`" in readme, f"{package}: {name}"
