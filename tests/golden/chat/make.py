"""Expected texts of chat templates and of small Jinja templates, from transformers and jinja2.

python make.py    (transformers 4.57, jinja2 3.1; rewrites render.jsonl and the answers in more.jsonl)

render.jsonl: {"template", "request", "expected" or "error"}: templates/*.jinja on the conversations below.
more.jsonl: the first line is the context of all; then {"t": template, "x": expected} or {"t": …, "e": kind of error}.
jinja.jsonl: {"template", "context", "expected" or "error", "message"}; strftime_now is 2024-07-26 15:04:05 UTC.
"""
import copy, datetime, glob, json, os, sys

import jinja2
from transformers.utils import chat_template_utils as ctu

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)
TOOL = {"type": "function", "function": {"name": "distance", "description": "Kilometres between two \"places\" — 距离", "parameters": {
    "type": "object", "properties": {"from": {"type": "string"}, "to": {"type": ["string", "null"]}, "unit": {"type": "string", "enum": ["km", "mi"]}}, "required": ["from"]}}}
PLAIN = {"type": "function", "function": {"name": "today", "parameters": {"type": "object", "properties": {}}}}


def m(role, content, **more):
    return dict({"role": role, "content": content}, **more)


def call(name, arguments):
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


Q = m("user", "How far is Oslo?")
CONVERSATIONS = [
    {"messages": [Q]},
    {"messages": [Q], "add_generation_prompt": False},
    {"messages": [m("system", "  Be exact. \n"), Q, m("assistant", "From where?"), m("user", "Rome\n")]},
    {"messages": [Q, m("assistant", "<think>\nIt depends.\n</think>\n\nFrom where?"), m("user", "Rome")]},
    {"messages": [Q, m("assistant", "<think>a</think>b<think>c</think>\n\nd")], "add_generation_prompt": False},
    {"messages": [Q, m("assistant", "Far.", reasoning_content="hm")], "add_generation_prompt": False},
    {"messages": [Q], "enable_thinking": False},
    {"messages": [Q], "enable_thinking": True},
    {"messages": [Q], "tools": [TOOL, PLAIN]},
    {"messages": [Q, m("assistant", None, tool_calls=[call("distance", {"to": "Oslo", "from": "Rome"})]), m("tool", "2000"), m("tool", {"km": 2000.5}), m("assistant", "2000 km")], "tools": [TOOL]},
    {"messages": [Q, m("assistant", "One moment.", tool_calls=[call("today", "{}"), call("distance", "{\"from\": \"Å\"}")]), m("tool", "x")]},
    {"messages": [m("user", [{"type": "text", "text": "what is"}, {"type": "image"}, {"type": "text", "text": "this?"}]), m("assistant", [{"type": "image"}])]},
    {"messages": [m("user", "[[end]] {{ x }} <b>ß</b> \u2028 \U0001F600")], "add_generation_prompt": False},
    {"messages": []},
    {"messages": [m("critic", "bad")]},
    {"messages": [m("user", None)]},
    {"messages": [{"role": "user"}]},
    {"messages": [Q, m("assistant", "It is ")], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [Q, m("assistant", "<think>\nLet me")], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [Q, m("assistant", "<think>x</think>So ")], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [Q, m("system", " so  ")], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [Q, m("assistant", [{"type": "text", "text": "it is"}, {"type": "image"}])], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [Q, m("assistant", None)], "continue_final_message": True, "add_generation_prompt": False},
    {"messages": [], "continue_final_message": True, "add_generation_prompt": False},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def kind(e):
    if type(e) is jinja2.exceptions.TemplateError:
        return "raise_exception"
    return type(e).__name__


def render():
    rows = []
    for path in sorted(glob.glob(os.path.join(HERE, "templates", "*.jinja"))):
        text = open(path, encoding="utf-8", newline="").read()
        for c in CONVERSATIONS:
            row = {"template": os.path.basename(path), "request": dict(c, **TOKENS)}
            more = {k: v for k, v in row["request"].items() if k not in ("messages", "tools", "continue_final_message", "add_generation_prompt")}
            try:
                out, _ = ctu.render_jinja_template([copy.deepcopy(c["messages"])], tools=copy.deepcopy(c.get("tools")), chat_template=text,
                                                   continue_final_message=c.get("continue_final_message", False),
                                                   add_generation_prompt=c.get("add_generation_prompt", True), **more)
                row["expected"] = out[0]
            except Exception as e:
                row["error"] = kind(e)
                row["message"] = str(e)
            rows.append(row)
    return rows


def small(template, context):
    t = getattr(ctu._compile_jinja_template, "__wrapped__", ctu._compile_jinja_template)(template)
    t.environment.globals["strftime_now"] = t.globals["strftime_now"] = lambda format: NOW.strftime(format)
    return t.render(**copy.deepcopy(context))


def write(name, rows):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        for r in rows:
            f.write(json.dumps(r, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    write("render.jsonl", render())
    rows = [json.loads(line) for line in open(os.path.join(HERE, "more.jsonl"), encoding="utf-8")]
    for r in rows[1:]:
        r.pop("x", None), r.pop("e", None)
        try:
            r["x"] = small(r["t"], rows[0])
        except Exception as e:
            r["e"] = kind(e)
    write("more.jsonl", rows)
