"""Two nodes' worth of Ray give what one process gives, though a worker is killed in the middle."""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from attnscope.probes.bulk import Item, Plan, RayEngine, Worker, capture_dataset
from attnscope.traces import TraceStore

ray = pytest.importorskip("ray", reason="the engine ray needs the extra ray")

# Ray's own processes, sockets and calls of other libraries; none of it is ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
]

FATAL = "seven"


def load_mortal(folder: Path, flag: Path):
    """Return the model; the first process in which it meets a certain word is killed."""
    from attnscope.probes import load

    subject = load(folder, device="cpu", dtype="float32")
    fatal = subject.tokenizer.convert_tokens_to_ids(FATAL)

    def die_once(module, arguments, options):
        if bool((options["input_ids"] == fatal).any()) and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    subject.model.register_forward_pre_hook(die_once, with_kwargs=True)
    return subject


@pytest.fixture
def cluster():
    from ray import cloudpickle
    from ray.cluster_utils import Cluster

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers know no tests
    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 80 * 2**20}
    nodes = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    nodes.add_node(**node)
    ray.init(address=nodes.address, log_to_driver=False)
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_cluster_gives_what_one_process_gives(cluster, load_tiny, model_folder, tmp_path):
    items = [
        Item(name=str(n), text=" ".join(["one", "two", "three"][: n % 3 + 1])) for n in range(9)
    ]
    items.append(Item(name="fatal", text=f"two {FATAL}"))
    items.append(Item(name="broken", text="one", images=(b"no picture",)))
    plan = Plan(model="tiny")
    here = Worker(load_tiny, str(tmp_path / "here"), plan)
    list(capture_dataset(here, items).outcomes)
    flag = tmp_path / "died"
    load = partial(load_mortal, model_folder, flag)
    there = Worker(load, str(tmp_path / "there"), plan)
    outcomes = list(capture_dataset(there, items, RayEngine(workers=2, batch=2)).outcomes)
    assert flag.exists()
    assert sorted(outcome.name for outcome in outcomes) == sorted(item.name for item in items)
    assert [outcome.name for outcome in outcomes if outcome.error] == ["broken"]
    one, many = TraceStore(here.address), TraceStore(there.address)
    columns = ["item", "name", "kind", "tokens", "segments", "layers", "heads", "model"]
    rows = [store.index().select(columns).sort_by("item").to_pylist() for store in (one, many)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10
    for item in items[:-1]:
        near, far = one.open(item.name), many.open(item.name)
        for layer in (0, 1):
            assert torch.equal(near.attention[layer].query, far.attention[layer].query)
            assert torch.equal(near.attention[layer].key, far.attention[layer].key)
    assert many.failures()["name"].to_pylist() == ["broken"]
