"""`python -m retinanet` is `retinanet`: torchrun needs a module."""

from retinanet.cli import main

if __name__ == "__main__":
    main()
