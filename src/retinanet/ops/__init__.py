"""The costly operations of the method: losses, the assignment of anchors, candidates, NMS, and convolutions.

Each operation has a plain torch form (`<op>_torch`), fast forms where they pay (`<op>_native` in C, `<op>_triton`), and
a function `<op>` that chooses a form for its inputs. Tests compare the value and the gradient of each fast form with
the plain form. The fast forms are optional: without the C library or Triton, the torch form is used and one log line
states why. The C sources are in `native/`.
"""
