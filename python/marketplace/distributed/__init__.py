"""One probe, many processes: each evaluates some of the plan's paths, and all take the same step.

Every worker holds the whole market and runs the same program from the same seeds, so what travels
is losses: at most eight bytes a path, worker and probe, whatever the model's size. ``RayCluster``
starts workers on the machines of a Ray cluster and replaces those that die; ``mpi.share`` lets the
processes of an MPI job share their probes. The weights have the same bits for any number of
workers, one process included. ``docs/distributed.md`` has both, with commands.
"""

from . import mpi
from ._ray import RayCluster

__all__ = ["RayCluster", "mpi"]
