"""What Dify, Chatbox and Open WebUI send, byte for byte where it matters, and how they read the answers."""
import http.client
import json
import socket
import unittest
import urllib.parse
from datetime import datetime

from serving import ASK, TOOLS


class Replay(unittest.TestCase):
    server = None

    def send(self, method, path, body=None, headers=None, timeout=60):
        at = urllib.parse.urlparse(self.server.url)
        c = http.client.HTTPConnection(at.hostname, at.port, timeout=timeout)
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})} if data else headers or {})
        r = c.getresponse()
        text = r.read()
        c.close()
        return r, text


class Dify(Replay):
    PING = [{"role": "user", "content": "ping"}]

    def test_ollama_validation(self):
        r, text = self.send("POST", "/api/chat", {"model": "plain", "stream": False, "options": {"num_predict": 5}, "messages": self.PING})
        o = json.loads(text)
        self.assertEqual(r.status, 200)
        self.assertEqual(o["model"], "plain")
        self.assertIsInstance(o["message"]["content"], str)

    def test_openai_validation(self):
        for model in ("plain", "always"):
            r, text = self.send("POST", "/v1/chat/completions", {"model": model, "max_tokens": 5, "messages": self.PING}, {"Authorization": "Bearer sk-none", "Accept-Charset": "utf-8"})
            o = json.loads(text)
            self.assertEqual(r.status, 200)
            self.assertEqual(o["object"], "chat.completion")
            self.assertIsInstance(o["choices"][0]["message"]["content"], str)  # "" while it still thinks

    def test_stream_as_dify_reads_it(self):
        r, text = self.send("POST", "/v1/chat/completions", {"model": "always", "stream": True, "max_tokens": 30, "thinking_token_budget": 5, "messages": self.PING,
                                                             "stream_options": {"include_usage": True}, "user": "abc-123"})
        self.assertIn("text/event-stream", r.getheader("Content-Type"))
        self.assertTrue(text.endswith(b"data: [DONE]\n\n"))
        seen = []
        for event in text.decode().split("\n\n"):
            if not event or event.startswith(":"):
                continue
            self.assertTrue(event.startswith("data: "), event)
            self.assertNotIn("\n", event)
            if event == "data: [DONE]":
                continue
            o = json.loads(event[6:])
            self.assertIsInstance(o["choices"], list)
            if o["choices"] and o["choices"][0].get("finish_reason") is None:
                d = o["choices"][0]["delta"]
                self.assertNotIn(None, d.values())
                seen.append("r" if "reasoning_content" in d else "c")
                if seen[-1] == "c" and "r" in seen and len(seen) > 1:
                    self.assertTrue(d.get("content"))  # an empty delta would close the thought
        self.assertIn("r", seen)

    def test_left_unread(self):
        at = urllib.parse.urlparse(self.server.url)
        body = json.dumps({"model": "plain", "messages": self.PING, "stream": True, "max_tokens": 10}).encode()
        s = socket.create_connection((at.hostname, at.port))
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        self.assertIn(b" 200 ", s.recv(64))
        s.close()
        self.test_ollama_validation()

    def test_tools_and_history(self):
        r, text = self.send("POST", "/api/chat", {"model": "plain", "stream": True, "keep_alive": "5m", "options": {"num_predict": 5, "stop": ["x-x"]}, "tools": TOOLS, "messages": ASK + [
            {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris", "days": 1}}}]},
            {"role": "tool", "content": "sun", "tool_name": "get_weather", "tool_call_id": "a"}]})
        self.assertEqual(r.status, 200)
        lines = text.split(b"\n")
        self.assertEqual(lines[-1], b"")
        self.assertNotIn(b"", lines[:-1])
        self.assertTrue(json.loads(lines[-2])["done"])

    def test_embed(self):
        r, text = self.send("POST", "/api/embed", {"input": ["a", "b"], "model": "plain", "truncate": True, "options": {"use_mmap": True}})
        self.assertEqual(len(json.loads(text)["embeddings"]), 2)

    def test_json_schema_as_typed(self):
        schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
        for given in (schema, {"name": "x", "schema": schema}, {"schema": schema}):
            r, text = self.send("POST", "/v1/chat/completions", {"model": "plain", "messages": self.PING, "max_tokens": 60, "response_format": {"type": "json_schema", "json_schema": given}})
            self.assertEqual(r.status, 200, text)
            self.assertIn(json.loads(json.loads(text)["choices"][0]["message"]["content"])["a"], (True, False))


class Chatbox(Replay):
    def test_old_ollama(self):
        r, text = self.send("GET", "/api/tags")
        self.assertIn("plain:latest", [m["name"] for m in json.loads(text)["models"]])
        r, text = self.send("POST", "/api/chat", {"model": "plain", "messages": ASK, "stream": True, "options": {"temperature": 0.7, "num_predict": 8}})
        for line in text.decode().strip().split("\n"):
            o = json.loads(line)
            if o["done"]:
                break
            self.assertTrue(o["message"]["content"])  # it stops at an empty one

    def test_old_openai(self):
        r, text = self.send("POST", "/v1/chat/completions", {"model": "plain", "messages": ASK, "stream": True, "max_tokens": 8, "temperature": 0.7, "top_p": 1})
        for event in text.decode().split("\n\n"):
            if event.startswith("data: {"):
                for c in json.loads(event[6:])["choices"]:
                    self.assertIsNotNone(c["delta"].get("content", ""))

    def test_models(self):
        for path in ("/models", "/v1/models"):
            r, text = self.send("GET", path, headers={"Authorization": "Bearer ollama"})
            self.assertEqual(r.status, 200)
            self.assertTrue(all(m["id"] for m in json.loads(text)["data"]))

    def test_browser(self):
        for origin in ("http://localhost:5173", "app://obsidian.md", "tauri://localhost"):
            r, _ = self.send("OPTIONS", "/v1/chat/completions", headers={"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os"})
            self.assertEqual(r.status, 204)
            self.assertEqual(r.getheader("Access-Control-Allow-Origin"), origin)
            self.assertIn("x-stainless-os", r.getheader("Access-Control-Allow-Headers").lower())
        r, _ = self.send("OPTIONS", "/v1/chat/completions", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"})
        self.assertIsNone(r.getheader("Access-Control-Allow-Origin"))


class OpenWebUI(Replay):
    def test_verify_and_lists(self):
        r, text = self.send("GET", "/api/version")
        self.assertRegex(json.loads(text)["version"], r"^\d+\.\d+\.\d+")
        r, text = self.send("GET", "/api/tags")
        for m in json.loads(text)["models"]:
            self.assertTrue({"model", "name", "size", "details", "digest", "modified_at"} <= set(m))
        self.send("POST", "/api/chat", {"model": "plain:latest", "messages": ASK, "stream": False, "options": {"num_predict": 2}})
        r, text = self.send("GET", "/api/ps")
        for m in json.loads(text)["models"]:
            self.assertGreater(datetime.fromisoformat(m["expires_at"].replace("Z", "+00:00")[:26] + "+00:00").year, 2000)

    def test_chat(self):
        r, text = self.send("POST", "/api/chat", {"model": "always:latest", "messages": ASK, "stream": True, "options": {"num_predict": 6}}, {"X-OpenWebUI-User-Name": "x"})
        self.assertIn("application/x-ndjson", r.getheader("Content-Type"))
        for line in text.decode().split("\n")[:-1]:
            json.loads(line)
        self.assertIn("thinking", text.decode())

    def test_errors_are_json(self):
        for path in ("/api/chat", "/v1/chat/completions", "/nowhere", "/api/nowhere"):
            r, text = self.send("POST", path, {"model": "nobody", "messages": ASK})
            self.assertEqual(r.status, 404)
            self.assertTrue(r.getheader("Content-Type").startswith("application/json"))
            json.loads(text)

    def test_side_jobs(self):
        r, text = self.send("POST", "/api/chat", {"model": "plain", "stream": False, "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title"}], "options": {"num_predict": 4}})
        self.assertEqual(r.status, 200)
        r, text = self.send("POST", "/v1/completions", {"model": "plain:latest", "prompt": "x", "max_tokens": 2})
        self.assertEqual(json.loads(text)["object"], "text_completion")
