"""OAUTHBEARER for tests: an issuer of tokens, a token endpoint, and the options of a broker."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, unquote_plus

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from worker.clock import SystemClock

LISTENER = "OAUTH"
CLIENT, SECRET = "labeller", "hunter2 +/~"

_MODULE = "org.apache.kafka.common.security.oauthbearer.OAuthBearer"


class Issuer:
    """Signs JSON Web Tokens (RS256).

    Args:
        folder: where the public keys are put, for the broker.
    """

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "jwks.json"
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "use": "sig", "alg": "RS256"}
        key |= {"n": _number(numbers.n), "e": _number(numbers.e)}
        self.keys.write_text(json.dumps({"keys": [key]}))

    def token(self, life: int = 60, **claims: Any) -> str:
        """Return a token that lives for `life` seconds from now."""
        now = SystemClock().wall_ms() // 1000
        told = {"iss": "issuer", "sub": "worker", "aud": "kafka", "scope": "kafka"}
        told |= {"iat": now, "exp": now + life} | claims
        head = {"alg": "RS256", "typ": "JWT", "kid": "1"}
        signed = f"{_text(json.dumps(head).encode())}.{_text(json.dumps(told).encode())}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_text(signature)}"

    @property
    def java(self) -> str:
        """Return the options of Java with which a broker may read the public keys."""
        allowed = "-Dorg.apache.kafka.sasl.oauthbearer.allowed"
        return f"{allowed}.urls={self.keys.as_uri()} {allowed}.files={self.keys}"

    def broker(self, **more: str) -> dict[str, str]:
        """Return the properties of a broker whose listener `LISTENER` takes these tokens.

        Args:
            more: properties of this mechanism at this listener; `_` stands for the dot.
        """
        own = {
            "sasl.jaas.config": f"{_MODULE}LoginModule required;",
            "sasl.server.callback.handler.class": f"{_MODULE}ValidatorCallbackHandler",
            "sasl.oauthbearer.jwks.endpoint.url": self.keys.as_uri(),
            "sasl.oauthbearer.expected.audience": "kafka",
            "sasl.oauthbearer.expected.issuer": "issuer",
        } | {name.replace("_", "."): value for name, value in more.items()}
        listeners = f"PLAINTEXT:PLAINTEXT,{LISTENER}:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"
        return {
            "listener.security.protocol.map": listeners,
            "sasl.enabled.mechanisms": "OAUTHBEARER",
        } | {f"listener.name.{LISTENER.lower()}.oauthbearer.{k}": v for k, v in own.items()}


class Endpoint:
    """A token endpoint; it listens for as long as the context lasts.

    Attributes:
        url: of the endpoint.
        asked: the fields of each request that it has answered.
        life: of its tokens, seconds.
        claims: further claims of its tokens.
        answer: status and body of every answer, in place of a token.
    """

    def __init__(self, issuer: Issuer) -> None:
        self.asked: list[dict[str, str]] = []
        self.life = 60
        self.claims: Mapping[str, Any] = {}
        self.answer: tuple[int, bytes] | None = None
        self._issuer = issuer
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread: threading.Thread | None = None
        self.url = f"http://127.0.0.1:{self._server.server_port}/token"

    def __enter__(self) -> Self:
        self.go_up()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_down()
        self._server.server_close()

    def go_up(self) -> None:
        """Listen."""
        self._server.socket.listen()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def go_down(self) -> None:
        """Refuse connections; the port stays bound, so that nobody else gets it."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
            self._server.socket.close()
            self._server.socket = socket.socket()
            self._server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._server.socket.bind(self._server.server_address)

    @property
    def options(self) -> dict[str, Any]:
        """Return the settings of a worker that signs in with its tokens."""
        return OAUTH | {
            "kafka__sasl_oauth_token_url": self.url,
            "kafka__sasl_oauth_client_id": CLIENT,
            "kafka__sasl_oauth_client_secret": SECRET,
            "kafka__sasl_oauth_scope": "kafka",
        }

    def reply(self, authorization: str, form: Mapping[str, str]) -> tuple[int, bytes]:
        """Return status and body of the answer to a request."""
        self.asked.append(dict(form))
        if self.answer is not None:
            return self.answer
        client = form.get("client_id"), form.get("client_secret")
        if authorization:
            login = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            name, _, secret = login.partition(":")
            client = unquote_plus(name), unquote_plus(secret)
        if client != (CLIENT, SECRET):
            words = {"error": "invalid_client", "error_description": "Wrong client secret"}
            return 401, json.dumps(words).encode()
        token = self._issuer.token(self.life, **self.claims)
        fields = {"access_token": token, "token_type": "Bearer", "expires_in": self.life}
        return 200, json.dumps(fields).encode()


OAUTH: dict[str, Any] = {
    "kafka__security_protocol": "SASL_PLAINTEXT",
    "kafka__sasl_mechanism": "OAUTHBEARER",
}


def _handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            authorization = self.headers.get("Authorization", "")
            status, answer = endpoint.reply(authorization, dict(parse_qsl(body)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def _number(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _text(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
