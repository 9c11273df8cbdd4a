"""Sends requests to the addresses of a schema registry, one after the other until one answers.

Owns: the HTTP client: sign-in, TLS, time limits, and the bound on an answer's size.
Thread: any; a call waits for the answer.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from worker.clock import Clock
from worker.errors import RegistryAway, RegistryDenied, SchemaRefused, SettingsError
from worker.registry.answers import RegistryAnswer, parse
from worker.settings import RegistrySettings
from worker.tls import load_files, reason_of

# Six times a schema of 5 MB: JSON escapes some characters by six.
_LARGEST_ANSWER: Final = 32 * 1024 * 1024  # bytes, decompressed
_LARGEST_ERROR: Final = 1024 * 1024  # bytes; the rest of a longer message is not read
# A body may take so many timeouts: a large schema over a slow network, but not one byte a second.
_TIMEOUTS_FOR_A_BODY: Final = 4
_TRY_AGAIN: Final = frozenset({408, 425, 429})
_PROXY_SIGN_IN: Final = "A proxy asks for a sign-in: put it into HTTPS_PROXY or HTTP_PROXY"
_CERTIFICATE: Final = "It asks for another client certificate (registry.ssl_certfile)"
_ASKED_BY_PROXY: Final = {407: _PROXY_SIGN_IN, 495: _CERTIFICATE, 496: _CERTIFICATE}
_NO_PROXY_HOST: Final = "a proxy of the environment (HTTPS_PROXY, HTTP_PROXY) has no valid host"
_NO_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # OpenSSL before 3.2, and since
_NO_SIGN_IN: Final = "set registry.username and registry.password, or registry.token"
_HEADERS: Final = {
    "Accept": "application/vnd.schemaregistry.v1+json, application/json",
    "User-Agent": "streamlabel",
}


class SchemaConflict(SchemaRefused):
    """The registry answers 409: a schema is incompatible, or was registered at the same moment."""


class RegistryConnection:
    """Asks the address that answered last first.

    Proxies are those of the environment (HTTPS_PROXY, NO_PROXY). Redirects are not followed: the
    sign-in would go to a server that the settings don't name.
    """

    def __init__(self, settings: RegistrySettings, clock: Clock) -> None:
        """Open no connection; raise SettingsError for what can't be used."""
        self._clock, self._timeout = clock, settings.timeout
        self._addresses = [one.strip().rstrip("/") for one in (settings.url or "").split(",")]
        self._first = 0
        self._sign_in = _sign_in(settings)
        _require_hosts(self._addresses)
        headers, context = _HEADERS | _authorization(settings), _context(settings)
        try:
            self._client = httpx2.Client(
                headers=headers,
                auth=_basic(settings),
                verify=context,
                timeout=settings.timeout,
                follow_redirects=False,
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise SettingsError(_proxy_problem(error)) from None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> RegistryAnswer:
        """Return an answer: a success, or 404.

        Raises:
            RegistryAway, RegistryDenied, SchemaRefused: as those of `RegistryClient`.
        """
        failures: list[RegistryAway | RegistryDenied] = []
        first, number = self._first, len(self._addresses)
        for index in (*range(first, number), *range(first)):
            try:
                answer = self._send(self._addresses[index], method, path, body)
            except (RegistryAway, RegistryDenied) as error:
                failures.append(error)
            else:
                self._first = index
                return answer
        reasons = "; ".join(map(str, failures))
        if all(isinstance(error, RegistryDenied) for error in failures):
            raise RegistryDenied(reasons)
        raise RegistryAway(reasons)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _send(
        self, address: str, method: str, path: str, body: Mapping[str, Any] | None
    ) -> RegistryAnswer:
        try:
            with self._client.stream(method, address + path, json=body) as response:
                content = self._body(address, response)
        except httpx2.TimeoutException:
            raise RegistryAway(f"{address} does not answer within {self._timeout:g} s") from None
        except httpx2.HTTPError as error:
            raise _failure(address, error) from error
        except UnicodeError:  # our own addresses are `_require_hosts`
            raise RegistryAway(f"{address}: {_NO_PROXY_HOST}") from None
        if response.is_redirect:
            raise RegistryAway(
                f"{address} redirects to {_target(response)}: set registry.url to it"
            )
        answer = parse(address, response.status_code, content)
        self._require_success(answer)
        return answer

    def _body(self, address: str, response: httpx2.Response) -> bytes:
        """Read a body piece by piece, so that neither its size nor its pace is the server's."""
        limit = _LARGEST_ANSWER if response.is_success else _LARGEST_ERROR
        deadline = self._clock.monotonic() + _TIMEOUTS_FOR_A_BODY * self._timeout
        content = bytearray()
        for piece in response.iter_bytes():
            content += piece
            if len(content) > limit:
                if not response.is_success:
                    break
                raise SchemaRefused(f"the answer of {address} is larger than {limit:,} bytes")
            if self._clock.monotonic() > deadline:
                raise RegistryAway(f"{address} sends its answer too slowly (registry.timeout)")
        return bytes(content)

    def _require_success(self, answer: RegistryAnswer) -> None:
        status, said = answer.status, f"{answer.address} answers {answer.status}: {answer.words}"
        if status < 400 or status == 404:
            return
        if status in (401, 403):
            raise RegistryDenied(
                f"{answer.address} refuses {self._sign_in} ({status}): {answer.words}"
            )
        if asked := _ASKED_BY_PROXY.get(status):
            raise RegistryDenied(f"{said}. {asked}")
        if status >= 500 or status in _TRY_AGAIN:
            raise RegistryAway(said)
        if not _is_registrys(answer):
            raise RegistryAway(
                f"{said}. A proxy or a gateway answers so, not a schema registry: check those "
                "before it, and the path in registry.url"
            )
        raise SchemaConflict(said) if status == 409 else SchemaRefused(said)


def _is_registrys(answer: RegistryAnswer) -> bool:
    """Return whether a refusal is a registry's own, and not that of a proxy before it.

    Apicurio Registry answers 409 with a message alone if two register at the same moment.
    """
    about_schema = answer.status in (409, 422) and isinstance(answer.content, Mapping)
    return bool(answer.error_code) or about_schema


def _require_hosts(addresses: list[str]) -> None:
    """Raise SettingsError for a host that no name service can have."""
    for address in addresses:
        try:
            httpx2.URL(address).raw_host.decode("ascii").encode("idna")
        except (httpx2.InvalidURL, UnicodeError):
            raise SettingsError(
                f"registry.url: {address!r} has no valid host name; it must be http://HOST:PORT or "
                "https://HOST:PORT"
            ) from None


def _proxy_problem(error: Exception) -> str:
    """Return what to change, without the proxy's URL, which may have a password in it."""
    if isinstance(error, ImportError):
        return (
            "a proxy of the environment (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) is a SOCKS proxy, for "
            "which the package socksio is missing: pip install socksio, use an HTTP proxy, or put "
            "the host of registry.url into NO_PROXY"
        )
    return (
        "a proxy of the environment (ALL_PROXY, HTTPS_PROXY, HTTP_PROXY) or NO_PROXY is no valid "
        f"address ({type(error).__name__}): it must be http://HOST:PORT"
    )


def _sign_in(settings: RegistrySettings) -> str:
    """Return what signs in, without a secret, for messages."""
    if settings.token:
        return "registry.token"
    if settings.username is not None:
        return f"registry.username = {settings.username!r} and its password"
    return f"requests without a sign-in: {_NO_SIGN_IN}"


def _authorization(settings: RegistrySettings) -> dict[str, str]:
    if not settings.token:
        return {}
    token = settings.token.get_secret_value()
    if not (token.isascii() and token.isprintable()):
        raise SettingsError("registry.token has characters that a header can't have: is it cut?")
    return {"Authorization": f"Bearer {token}"}


def _basic(settings: RegistrySettings) -> tuple[str, str] | None:
    if settings.username is None:
        return None
    password = settings.password
    return settings.username, password.get_secret_value() if password else ""


def _context(settings: RegistrySettings) -> ssl.SSLContext:
    own = settings.ssl_cafile is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if own else _default_context()
    load_files(context, settings, "registry")
    return context


def _default_context() -> ssl.SSLContext:
    try:
        return httpx2.create_ssl_context()
    except OSError as error:
        raise SettingsError(
            "the file SSL_CERT_FILE or the folder SSL_CERT_DIR of the environment can't be read "
            f"({reason_of(error)}): correct it, or set registry.ssl_cafile"
        ) from None


def _failure(address: str, error: httpx2.HTTPError) -> RegistryAway | RegistryDenied:
    """Return our error for a connection that failed: bad certificates need an operator."""
    if isinstance(error, httpx2.ProxyError) and str(error).startswith("407"):
        return RegistryDenied(f"{address}: {error}. {_PROXY_SIGN_IN}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RegistryDenied(
                f"the certificate of {address} is not trusted ({cause.verify_message}): set "
                "registry.ssl_cafile to its authority"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in _NO_TLS:
            return RegistryDenied(f"{address} does not speak TLS: does registry.url need http://?")
        if isinstance(cause, ssl.SSLError) and "_ALERT_" in (cause.reason or ""):
            return RegistryDenied(
                f"{address} refuses the TLS connection ({cause.reason}): does it ask for a client "
                "certificate (registry.ssl_certfile)?"
            )
        cause = cause.__cause__ or cause.__context__
    return RegistryAway(f"{address}: {error or type(error).__name__}")


def _target(response: httpx2.Response) -> str:
    """Return the server that a redirect names: its path may have something secret in it."""
    if response.next_request is None:
        return "no address"
    url = response.next_request.url
    return f"{url.scheme}://{url.netloc.decode(errors='replace')}"
