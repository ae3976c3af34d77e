"""A Ray cluster of two nodes on this machine, and processes of it that die in the middle of a job."""

import os
import signal
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def two_nodes():
    """Connected to a cluster whose two nodes have a CPU each; yields (cluster, second node)."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        second = cluster.add_node(**small)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def actors(cluster):
    """Processes of this cluster's nodes that hold a network: their ids."""
    nodes = {
        process.process.pid
        for node in cluster.list_all_nodes()
        for kind, processes in node.all_processes.items()
        for process in processes
        if kind == "raylet"
    }
    running = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in running if _parent(pid) in nodes and _is_actor(pid)]


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def _parent(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _is_actor(pid):
    try:
        return b"MapWorker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
