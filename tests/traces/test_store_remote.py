"""A store in an object store: the same as in a folder, read in ranges or through a cache."""

import logging

import pytest
import torch

from attnscope.traces import (
    Deposit,
    StoredReading,
    StoreError,
    TraceStore,
    adopt_orphans,
    set_orphans_aside,
    survey_store,
)

pytest.importorskip("s3fs", reason="S3 needs the extra s3")
pytest.importorskip("moto", reason="a server that stands for S3 is moto's")

pytestmark = [
    # botocore and moto's server, none of it ours
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.fixture(scope="module")
def endpoint():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def store(endpoint, request, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    options = {"endpoint_url": endpoint, "key": "testing", "secret": "testing"}
    bucket = f"b{abs(hash(request.node.name))}"
    store = TraceStore(f"s3://{bucket}/runs", **options)
    store.files.fs.mkdir(bucket)
    return store


def test_traces_and_readings_come_back_from_far(store, make_trace, tmp_path, monkeypatch):
    trace = make_trace(length=2000)
    values = StoredReading(name="span", values=torch.rand(2, 4), axes=("layer", "head"))
    number = store.add(trace, name="far", tags=["a"], readings=[values])
    store.append([Deposit(item="q", error="no")])
    store.tag([number], add=["b"])
    again = TraceStore(store.address, **store.files.fs.storage_options)
    assert again.index().select(["name", "tags"]).to_pylist() == [
        {"name": "far", "tags": ["a", "b"]}
    ]
    assert again.readings("span")["values"].to_pylist() == [
        [float(v)] for v in values.values.reshape(-1)
    ]

    asked = []
    read = again.files.read_range
    monkeypatch.setattr(
        again.files, "read_range", lambda *place: asked.append(place) or read(*place)
    )
    far = again.open("far")
    opening = len(asked)
    assert opening <= 3  # the header and the numbers of each token
    assert torch.equal(far.attention.heads(0, [1]).query, trace.attention.heads(0, [1]).query)
    assert len(asked) - opening <= 3
    size = again.find("far")["bytes"]
    assert sum(stop - start for _, start, stop in asked) < size / 2

    cached = again.open("far", cache=tmp_path)
    assert torch.equal(cached.attention[1].key, trace.attention[1].key)
    (copy,) = tmp_path.iterdir()
    assert copy.stat().st_size == size
    monkeypatch.setattr(again.files, "download", None)
    assert again.open("far", cache=tmp_path).tokens == trace.tokens

    assert {fold.written for fold in again.compact().values()} <= {0, 1}
    assert len(again.files.names("index")) == 1
    assert again.index().num_rows == again.failures().num_rows == 1
    again.delete([number])
    assert again.files.sizes("traces") == {}


def test_a_store_far_away_is_repaired_as_one_near(store, make_trace, tmp_path):
    number = store.add(make_trace(length=8))
    path = store.find(number)["path"]
    store.files.put_by("traces/00/aa.z.safetensors", make_trace(length=8).save, lambda path: None)
    store.files.put("traces/00/bb.y.safetensors", b"noise")
    adopted, refused = adopt_orphans(store)
    assert adopted == ["traces/00/aa.z.safetensors"]
    assert list(refused) == ["traces/00/bb.y.safetensors"]
    assert set_orphans_aside(store) == list(refused)
    assert store.files.read(["attic/traces/00/bb.y.safetensors"]) == [b"noise"]
    store.files.remove([path])
    assert survey_store(store).missing == (path,)
    content = store.files.read(["traces/00/aa.z.safetensors"])[0]
    store.files.put("traces/00/aa.z.safetensors", content[:-1] + b"?")
    with pytest.raises(StoreError, match="is not what was put there"):
        store.open("aa", cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
