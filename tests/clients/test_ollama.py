"""The ollama package, as people use it."""
import json
import unittest

import ollama

from serving import ASK, SCHEMA, TOOLS


def get_weather(city: str, days: int) -> str:
    """The weather in a city.

    Args:
        city: the city
        days: how many
    """
    return city * days


class Ollama(unittest.TestCase):
    server = None

    def setUp(self):
        self.client = ollama.Client(host=self.server.url)

    def chat(self, **more):
        options = {"num_predict": 12, **more.pop("options", {})}
        return self.client.chat(**{"model": "plain", "messages": ASK, "options": options, **more})

    def test_list(self):
        models = self.client.list().models
        names = [m.model for m in models]
        self.assertIn("plain:latest", names)
        one = models[names.index("plain:latest")]
        self.assertGreater(one.size, 1000)
        self.assertTrue(one.digest)
        self.assertTrue(one.modified_at)
        self.assertTrue(one.details.quantization_level)

    def test_show(self):
        s = self.client.show("plain")
        self.assertEqual(s.modelinfo["general.architecture"], "qwen2")
        self.assertIn("completion", s.capabilities)
        self.assertIn("thinking", self.client.show("always").capabilities)
        self.assertIn("im_start", s.template)
        self.assertTrue(s.details.family)

    def test_chat(self):
        r = self.chat()
        self.assertEqual(r.model, "plain")
        self.assertTrue(r.done)
        self.assertIn(r.done_reason, ("stop", "length"))
        self.assertEqual(r.message.role, "assistant")
        self.assertGreater(r.prompt_eval_count, 3)
        self.assertLessEqual(r.eval_count, 12)
        self.assertGreater(r.total_duration, 1000)
        self.assertGreaterEqual(r.total_duration, r.eval_duration)

    def test_stream_is_the_same_text(self):
        whole = self.chat(options={"temperature": 0}).message.content
        parts = list(self.chat(options={"temperature": 0}, stream=True))
        self.assertEqual("".join(p.message.content for p in parts), whole)
        self.assertTrue(parts[-1].done)
        self.assertFalse(parts[0].done)

    def test_latest(self):
        self.assertEqual(self.chat(model="plain:latest").model, "plain:latest")

    def test_generate(self):
        r = self.client.generate("plain", "Hello", options={"num_predict": 5, "temperature": 0})
        self.assertIsInstance(r.response, str)
        self.assertGreater(len(r.context), 3)
        more = self.client.generate("plain", "again", context=r.context, options={"num_predict": 3})
        self.assertGreater(more.prompt_eval_count, r.prompt_eval_count)
        raw = self.client.generate("plain", "Hello", raw=True, options={"num_predict": 5})
        self.assertLess(raw.prompt_eval_count, r.prompt_eval_count)
        text = "".join(p.response for p in self.client.generate("plain", "Hello", stream=True, options={"num_predict": 5, "temperature": 0}))
        self.assertEqual(text, r.response)

    def test_think(self):
        r = self.chat(model="always", options={"num_predict": 6})
        self.assertTrue(r.message.thinking)
        self.assertEqual(r.message.content, "")
        for model in ("always", "switch"):
            r = self.chat(model=model, think=False)
            self.assertFalse(r.message.thinking)
        parts = list(self.chat(model="always", think=True, stream=True, options={"num_predict": 6}))
        self.assertTrue("".join(p.message.thinking or "" for p in parts))
        with self.assertRaises(ollama.ResponseError) as c:
            self.chat(think=True)
        self.assertEqual(c.exception.status_code, 400)
        self.assertIn("does not support thinking", c.exception.error)

    def test_format(self):
        r = self.chat(format=SCHEMA, options={"num_predict": 300})
        o = json.loads(r.message.content)
        self.assertEqual(set(o), {"name", "age"})
        r = self.chat(model="switch", think=False, format=SCHEMA, options={"num_predict": 300})
        self.assertEqual(set(json.loads(r.message.content)), {"name", "age"})

    def test_tools(self):
        r = self.chat(tools=TOOLS)
        self.assertIsInstance(r.message.content, str)
        r = self.chat(tools=[get_weather], messages=ASK + [
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 2}}}]},
            {"role": "tool", "tool_name": "get_weather", "content": "rain"}])
        self.assertTrue(r.done)

    def test_embed(self):
        r = self.client.embed("plain", ["one", "two"])
        self.assertEqual(len(r.embeddings), 2)
        self.assertEqual(len(r.embeddings[0]), 64)
        self.assertAlmostEqual(sum(x * x for x in r.embeddings[0]), 1, places=4)
        old = self.client.embeddings("plain", "one")
        self.assertEqual(len(old.embedding), 64)

    def test_ps_and_unload(self):
        self.chat(keep_alive="10m")
        running = {m.model: m for m in self.client.ps().models}
        self.assertIn("plain:latest", running)
        self.assertTrue(running["plain:latest"].expires_at)
        r = self.client.generate("plain", keep_alive=0)
        self.assertEqual(r.done_reason, "unload")
        self.assertEqual(self.client.generate("plain").done_reason, "load")

    def test_logprobs(self):
        r = self.client.chat(model="plain", messages=ASK, logprobs=True, top_logprobs=2, options={"num_predict": 3})
        self.assertGreater(len(r.logprobs), 0)
        self.assertEqual(len(r.logprobs[0].top_logprobs), 2)

    def test_errors(self):
        with self.assertRaises(ollama.ResponseError) as c:
            self.chat(model="no-such-model")
        self.assertEqual(c.exception.status_code, 404)
        self.assertIn("no-such-model", c.exception.error)
        for call in (lambda: self.client.pull("x"), lambda: self.client.delete("plain"), lambda: self.client.copy("plain", "y"), lambda: self.client.create("z", from_="plain")):
            with self.assertRaises(ollama.ResponseError) as c:
                call()
            self.assertEqual(c.exception.status_code, 501)
        for options in ({"temperature": "hot"}, {"top_k": 1.5}, {"num_ctx": 2**40}):
            with self.assertRaises(ollama.ResponseError) as c:
                self.client.chat(model="plain", messages=ASK, options=ollama.Options.model_construct(**options))
            self.assertEqual(c.exception.status_code, 400)
