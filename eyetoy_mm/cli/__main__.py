"""``python -m eyetoy_mm.cli``, where ``eyetoy`` is not on the path."""

from eyetoy_mm.cli import main

if __name__ == "__main__":
    main()
