"""Benchmarks: ours and its peers on identical work, how it scales and learns, what a step costs.

Run from the checkout's root, with ``marketplace`` and the extra ``[bench]`` installed:
``python -m benchmarks.peers``, ``.scaling``, ``.step_cost``, ``.bench_memory``,
``.bench_scatter``, ``.bench_distributed``, ``.learning``.
"""
