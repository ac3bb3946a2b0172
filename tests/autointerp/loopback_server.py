"""A server on this machine that speaks the protocol of chat completions, and fails when it is told to."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from atlas.autointerp.http_client import HttpClient
from atlas.config.autointerp import LabelClient


def said(text, logprobs=None, finish_reason="stop", **fields):
    message = {"role": "assistant", "content": text, **fields}
    choice = {"message": message, "logprobs": logprobs, "finish_reason": finish_reason}
    return 200, json.dumps({"choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})


class Server:
    """Answers with what `script` holds, one after the other, the last for ever; keeps what it was asked.

    A step is (status, text) with headers perhaps, or a function from the body of a request to that.
    """

    def __init__(self):
        self.script, self.asked, self.headers = [said("label")], [], []
        self.in_flight = self.most = 0
        self.barrier, lock, outer = None, threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append((self.path, body))
                    outer.headers.append(dict(self.headers))
                    outer.in_flight += 1
                    outer.most = max(outer.most, outer.in_flight)
                    step = outer.script.pop(0) if len(outer.script) > 1 else outer.script[0]
                status, text, *more = step(body) if callable(step) else step
                if outer.barrier is not None:
                    outer.barrier.wait(10)
                with lock:
                    outer.in_flight -= 1
                if status == "hang up":
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                payload = text.encode()
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None  # clients that hang up are meant
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def client(self, **fields) -> HttpClient:
        return HttpClient(LabelClient(kind="openai", model="m", base_url=self.url, **fields), first_pause=0.01)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
