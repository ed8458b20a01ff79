"""litellm, through its openai, deepseek and ollama providers."""
import unittest

import litellm

from serving import ASK

litellm.suppress_debug_info = True


class LiteLLM(unittest.TestCase):
    server = None

    def test_openai(self):
        r = litellm.completion("openai/plain", messages=ASK, api_base=self.server.url + "/v1", api_key="x", max_tokens=5)
        self.assertIsInstance(r.choices[0].message.content, str)

    def test_deepseek(self):
        r = litellm.completion("deepseek/deepseek-reasoner", messages=ASK, api_base=self.server.url, api_key="x", max_tokens=8)
        self.assertTrue(r.choices[0].message.reasoning_content)

    def test_ollama(self):
        r = litellm.completion("ollama_chat/plain", messages=ASK, api_base=self.server.url, max_tokens=5)
        self.assertIsInstance(r.choices[0].message.content, str)
        text = [c.choices[0].delta.content or "" for c in litellm.completion("ollama_chat/plain", messages=ASK, api_base=self.server.url, max_tokens=5, stream=True)]
        self.assertGreater(len(text), 0)

    def test_context_error(self):
        with self.assertRaises(litellm.ContextWindowExceededError):
            litellm.completion("openai/plain", messages=[{"role": "user", "content": "word " * 3000}], api_base=self.server.url + "/v1", api_key="x")

    def test_embedding(self):
        r = litellm.embedding("openai/plain", input=["a"], api_base=self.server.url + "/v1", api_key="x")
        self.assertEqual(len(r.data[0]["embedding"]), 64)
