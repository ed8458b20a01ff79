"""A ponder server for the tests of clients: models made from a golden one, a free port, an end.

The model is tests/golden/models/qwen2_tied (random weights, 512 tokens, 1,024 positions) under three chat
templates: one that knows no thoughts, one that always opens them, one with a switch. What it writes is noise;
what is tested is the shape of answers, and content where something forces it (grammars, budgets, tools).
"""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "..", "golden", "models", "qwen2_tied")

BODY = """{%- if tools %}<|im_start|>system
Tools:
{%- for t in tools %}
{{ t | tojson }}
{%- endfor %}<|im_end|>
{% endif %}{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content if m.content is string else '' }}
{%- for c in m.tool_calls or [] %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
"""
TEMPLATES = {
    "plain": BODY + "{% endif %}",
    "always": BODY + "<think>\n{% endif %}",
    "switch": BODY + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}",
}


def models(folder):
    for name, template in TEMPLATES.items():
        to = os.path.join(folder, name)
        os.mkdir(to)
        for file in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json"):
            shutil.copy(os.path.join(GOLDEN, file), to)
        with open(os.path.join(GOLDEN, "tokenizer_config.json")) as f:
            config = json.load(f)
        config["chat_template"] = template
        with open(os.path.join(to, "tokenizer_config.json"), "w") as f:
            json.dump(config, f)


class Server:
    def __init__(self, *options):
        self.folder = tempfile.mkdtemp(prefix="ponder-clients-")
        models_dir = os.path.join(self.folder, "models")
        os.mkdir(models_dir)
        models(models_dir)
        program = os.environ.get("PONDER", "ponder")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PONDER_", "OLLAMA_"))}
        env["XDG_CACHE_HOME"] = env["HOME"] = self.folder
        self.process = subprocess.Popen(
            [program, "serve", "--models-dir", models_dir, "--port", "0", "--threads", "2", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
        self.log, self.url = [], None
        for line in self.process.stdout:
            self.log.append(line)
            found = re.search(r"https?://[\w.]+:\d+", line)
            if found:
                self.url = found.group(0)
                break
        if not self.url:
            self.process.wait()
            raise RuntimeError("ponder serve did not start:\n" + "".join(self.log))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            self.log.append(line)

    def stop(self):
        """Ends it as a user would; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status


TOOLS = [{
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "北京"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ASK = [{"role": "user", "content": "What is the capital of France?"}]
