"""What the Runner and the tools need beyond mmengine: configs made ready to run, hooks, errors for the command line."""

import eyetoy_mm.registry  # noqa: F401 - first: it says what is missing where mmengine is
