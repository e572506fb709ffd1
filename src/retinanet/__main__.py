"""Run the command line as `python -m retinanet`, the form that torchrun needs."""

from retinanet.cli import main

if __name__ == "__main__":
    main()
