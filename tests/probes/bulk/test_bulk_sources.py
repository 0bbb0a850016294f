"""Every kind of dataset gives the same items, and says what in it is none."""

import json
from io import BytesIO

import pytest

from attnscope.probes import CaptureError
from attnscope.probes.bulk import BadItem, Item, Plan, keyed, read_items
from attnscope.probes.bulk.rows import item_of

ROWS = [
    {"id": "first", "text": "one two", "response": "three"},
    {"text": "four"},
    {"messages": [{"role": "user", "content": "five"}]},
]
ITEMS = [
    Item(name="first", text="one two", response="three"),
    Item(name="2", text="four"),
    Item(name="3", messages=({"role": "user", "content": "five"},)),
]


def picture(color):
    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (2, 2), color).save(buffer, format="PNG")
    return buffer.getvalue()


def test_lines_rows_and_saved_datasets_give_the_same_items(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is an extra")
    import pyarrow
    from pyarrow import parquet

    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n\n".join(map(json.dumps, ROWS)))
    found = list(read_items(str(lines)))
    assert [item.name for item in found] == ["first", "3", "5"]  # lines, empty ones counted
    empty = dict.fromkeys(("id", "response", "messages"))
    table = pyarrow.Table.from_pylist([empty | row for row in ROWS])
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert list(read_items(str(tmp_path / "rows.parquet"))) == ITEMS
    saved = tmp_path / "saved"
    datasets.Dataset(table).save_to_disk(saved)
    assert list(read_items(str(saved))) == ITEMS
    with pytest.raises(CaptureError, match="has no split 'test'"):
        list(read_items(str(saved), "test"))


def test_folders_of_texts_and_pictures(tmp_path):
    texts = tmp_path / "texts"
    (texts / "in").mkdir(parents=True)
    (texts / "b.txt").write_text("two")
    (texts / "in" / "a.md").write_text("one")
    (texts / "c.txt").write_bytes(b"\xff")
    (texts / "notes.log").write_text("no item")
    good, bad, last = read_items(str(texts))
    assert good == Item(name="b.txt", text="two")
    assert last == Item(name="in/a.md", text="one")
    assert isinstance(bad, BadItem)
    assert "utf-8" in bad.reason
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "red.png").write_bytes(picture("red"))
    assert list(read_items(str(pictures))) == [Item(name="red.png", images=(picture("red"),))]
    assert next(iter(read_items(str(pictures / "red.png")))).images == (picture("red"),)


def test_what_is_no_item_is_told_and_the_rest_goes_on(tmp_path):
    file = tmp_path / "in.jsonl"
    lines = ['{"text": "one"}', "{oops", "[]", '{"words": "x"}', '{"text": " "}', '{"text": "two"}']
    file.write_text("\n".join(lines))
    found = list(read_items(str(file)))
    assert [type(item) for item in found] == [Item, BadItem, BadItem, BadItem, BadItem, Item]
    reasons = [item.reason for item in found if isinstance(item, BadItem)]
    assert "is not JSON" in reasons[0]
    assert reasons[1:3] == [
        "is not a JSON object",
        "has no text, messages or image; it has words",
    ]
    assert "a text that is no text" in reasons[3]


def test_pictures_of_a_row_come_by_path_bytes_or_as_they_are(tmp_path):
    from PIL import Image

    (tmp_path / "red.png").write_bytes(picture("red"))
    opened = Image.open(BytesIO(picture("red")))
    for image in ("red.png", picture("red"), {"bytes": picture("red")}, opened):
        item = item_of({"text": "what?", "image": image}, "1", tmp_path)
        assert Image.open(BytesIO(item.images[0])).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(CaptureError, match="an image that is none: 7"):
        item_of({"image": 7}, "1")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("./nowhere", "there is no ./nowhere"),
        ("nowhere.jsonl", "there is no nowhere.jsonl"),
        ("mixed", "holds both .jsonl and .txt; give one kind"),
        ("empty", "holds nothing that can be read"),
    ],
)
def test_what_is_no_dataset_is_refused(tmp_path, monkeypatch, name, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mixed").mkdir()
    (tmp_path / "empty").mkdir()
    for file in ("a.jsonl", "b.txt"):
        (tmp_path / "mixed" / file).write_text("x")
    with pytest.raises(CaptureError, match=reason):
        list(read_items(name))


def test_keys_follow_content_plan_and_equals_before(items):
    plan = Plan(model="m")
    keys = [key for key, _ in keyed(items, plan)]
    assert len(set(keys)) == len(items)
    assert keys[0][:-2] == keys[4][:-2]  # equal but for their names
    more = [Item(name="new", text="new"), *reversed(items)]
    assert {key for key, _ in keyed(more, plan)} > set(keys)
    other = {key for key, _ in keyed(items, Plan(model="other"))}
    assert not other & set(keys)
    assert [key for key, _ in keyed(items, Plan(model="m", tags=("a",)))] == keys
