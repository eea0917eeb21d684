"""Learning: one network, one data set, the same first weights and batches, several methods.

``python -m benchmarks.learning`` trains the beautiful-MNIST network with each method of
``methods.py`` and compares test accuracy by steps, floating point operations and time.
"""
