import json

import pytest

from attnscope.app.failures import CommandError
from attnscope.app.prompts import Prompt, read_prompts


def write(folder, *lines):
    path = folder / "prompts.jsonl"
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    )
    return path


def test_lines_are_texts_with_or_without_response_and_chats(tmp_path):
    chat = [{"role": "user", "content": "one"}]
    lines = ['{"text": "a"}', "", '{"text": "b", "response": "c", "id": "x"}']
    prompts, bad = read_prompts(write(tmp_path, *lines, json.dumps({"messages": chat, "id": 7})))
    assert not bad
    assert prompts == [
        Prompt(name="1", inputs="a", line=1),
        Prompt(name="x", inputs="b", response="c", line=3),
        Prompt(name="7", inputs=chat, line=4),
    ]


def test_a_response_or_a_last_assistant_message_is_an_answer():
    user, assistant = ({"role": role, "content": "x"} for role in ("user", "assistant"))
    assert not Prompt(name="1", inputs="a").is_answered
    assert Prompt(name="1", inputs="a", response="b").is_answered
    assert not Prompt(name="1", inputs=[assistant, user]).is_answered
    assert Prompt(name="1", inputs=[user, assistant]).is_answered


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (b'{"text": "\xff"}', "is not UTF-8 text"),
        ("3", "is not a JSON object: 3"),
        ("{}", "has to have a text or messages, one of them; it has []"),
        ('{"text": "a", "messages": []}', "one of them; it has ['messages', 'text']"),
        ('{"text": 3}', "has a text that is no text: 3"),
        ('{"text": ""}', "has a text that is no text: ''"),
        ('{"text": "a", "response": []}', "has a response that is no text: []"),
        ('{"messages": []}', "has messages that are no list of role and content: []"),
        ('{"messages": ["hi"]}', "has messages that are no list of role and content: ['hi']"),
        ('{"messages": [{"role": "user"}]}', "has messages that are no list"),
        ('{"messages": [{"role": "user", "content": ""}], "response": "a"}', "last assistant"),
    ],
)
def test_a_bad_line_is_told_with_its_number_and_the_rest_is_kept(tmp_path, line, reason):
    prompts, bad = read_prompts(write(tmp_path, '{"text": "a"}', line, '{"text": "b"}'))
    assert [prompt.line for prompt in prompts] == [1, 3]
    assert [one.line for one in bad] == [2]
    assert reason in bad[0].reason


@pytest.mark.parametrize(
    "name",
    ["../up", "/root", "a/b", "a\\b", "..", ".hidden", "", "a\u0000b", "x" * 200, True, None, 1.5],
)
def test_an_id_cannot_lead_out_of_the_folder(tmp_path, name):
    prompts, bad = read_prompts(write(tmp_path, json.dumps({"text": "a", "id": name})))
    assert not prompts
    assert "which cannot name a file" in bad[0].reason


def test_two_lines_cannot_have_one_name(tmp_path):
    prompts, bad = read_prompts(write(tmp_path, '{"text": "a"}', '{"text": "b", "id": "1"}'))
    assert len(prompts) == 1
    assert bad[0].reason == "id '1' is that of line 1, too"


def test_a_file_without_lines_is_refused(tmp_path):
    with pytest.raises(CommandError, match="holds no line"):
        read_prompts(write(tmp_path, " ", ""))
