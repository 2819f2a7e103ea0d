"""Import every module of the project; print JSON of what was imported, in which versions.

`python -m tests.check_imports`, in the environment in question. Keys: `python` and `system`;
`packages`, the versions of those installed; `n_modules` imported; `without`, modules that need a
package of pyproject.toml's extras that is not there; `failed`, the errors of other modules.
"""

import importlib
import json
import pkgutil
import platform
import sys
from importlib import metadata

import hearback

# Packages of pyproject.toml's extras, and of the environments of Demucs and MeloTTS.
OPTIONAL = {"av", "demucs", "hama", "hibari", "matplotlib", "melo", "onnxruntime", "pyworld", "ray"}
# A sitecustomize.py, which changes the process that imports it.
NO_MODULE = "hearback.engine.submission.sandbox_guard"


def import_all() -> tuple[int, dict[str, str], dict[str, str]]:
    """Return `n_modules`, `without` and `failed`."""
    n_modules, without, failed = 0, dict[str, str](), dict[str, str]()
    for module in pkgutil.walk_packages(hearback.__path__, "hearback."):
        if module.name == NO_MODULE:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            (without if missing in OPTIONAL else failed)[module.name] = str(error)
        except Exception as error:
            failed[module.name] = f"{type(error).__name__}: {error}"
        else:
            n_modules += 1
    return n_modules, without, failed


def main() -> int:
    """Import the modules and print the result; return 1 if one failed."""
    n_modules, without, failed = import_all()
    packages = {
        distribution.metadata["Name"].lower(): distribution.version
        for distribution in metadata.distributions()
    }
    print(
        json.dumps(
            {
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
                "packages": packages,
                "n_modules": n_modules,
                "without": without,
                "failed": failed,
            }
        )
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
