"""The HIP backend: ``libmarketplace_hip.so`` lies in this folder, where marketplace finds it."""
