"""Fast forms of what the method adds to a network: in C for CPU tensors, in Triton for CUDA ones. All optional.

Each is pinned by a test to the plain code that it stands for, and whoever calls it has a torch path beside it: where
the library was not built or cannot be loaded, that one serves, said once in the log.
"""
