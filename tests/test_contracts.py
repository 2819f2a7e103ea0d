"""What infer imports, wherever the import stands: only the runtime's packages.

The other contracts are import-linter's, in pyproject.toml: `make lint`.
"""

import sys

import grimp
import pytest

from hearback.engine.submission.archive import PACKAGE_OF_MODULE, RUNTIME, listed_packages
from hearback.reading.submission.pack import CARRIED


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("hearback", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("competition", ["reading", "songs"])
def test_infer_imports_only_packages_of_the_runtime(
    graph: grimp.ImportGraph, competition: str
) -> None:
    imported = graph.find_upstream_modules(f"hearback.{competition}.steps.infer")
    external = {module for module in imported if module.partition(".")[0] != "hearback"}
    packages = {PACKAGE_OF_MODULE.get(module, module) for module in external}
    assert "torch" in packages
    carried = CARRIED if competition == "reading" else ()
    assert packages <= {*sys.stdlib_module_names, *listed_packages(RUNTIME), *carried}


def test_the_graph_sees_imports_inside_of_functions(graph: grimp.ImportGraph) -> None:
    assert "ray" in graph.find_upstream_modules("hearback.engine.launch.cluster")
