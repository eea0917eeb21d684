"""The CUDA backend: ``libmarketplace_cuda.so`` lies in this folder, where marketplace finds it."""
