"""The tree of errors: each class has a stable code, an HTTP status, a close code and an exit status."""


class AphlictError(Exception):
    """The root. `str()` is one sentence for the user; programs use `code`.

    Class attributes: `code` is the stable name in JSON and logs (docs/protocol.md), `http_status` that of a response,
    `close_code` that of a WebSocket (RFC 6455, 7.4), `exit_status` that of a command (docs/operations.md).
    """

    code = "internal_error"
    http_status = 500
    close_code = 1011
    exit_status = 1
    keep_alive = False  # whether the connection stays open after the HTTP response
    limit: str | None = None  # configuration key of the limit that was reached
    limit_detail = ""  # for the log line of the limit
    retry_after: int | None = None  # seconds, for Retry-After
    challenges: tuple[str, ...] = ()  # WWW-Authenticate of the HTTP response, one line each
    channels: tuple[str, ...] = ()  # the refused ones, where others of the same request might be accepted

    def __init__(self, sentence: str = "", *, code: str | None = None) -> None:
        """Initialize; `code`: that of the response of another server which the error reports."""
        super().__init__(sentence)
        if code is not None:
            self.code = code


# For the operator.


class UsageError(AphlictError):
    """The command line is invalid."""

    code = "usage_error"
    exit_status = 77


class ConfigError(AphlictError):
    """The configuration is invalid: the sentence has the key, its value and what was expected."""

    code = "config_invalid"
    exit_status = 77


class CertificateError(ConfigError):
    """A key, certificate or chain is not usable."""

    code = "certificate_invalid"


class AlreadyRunning(AphlictError):
    """Another server with this pidfile is running."""

    code = "already_running"
    exit_status = 77


class BindError(AphlictError):
    """A listening socket cannot be opened."""

    code = "bind_failed"


class AddressInUse(BindError):
    """Another process listens on the address and port."""

    code = "address_in_use"


class FileError(AphlictError):
    """A pidfile or log file cannot be created, read or written."""

    code = "file_error"


class StartFailed(AphlictError):
    """The server exited before it was ready."""

    code = "start_failed"


class ReloadRejected(AphlictError):
    """A worker cannot apply the new configuration, so no worker does."""

    code = "reload_rejected"


class NotPermitted(AphlictError):
    """The server belongs to another user."""

    code = "permission_denied"


class AdminUnreachable(AphlictError):
    """The admin server rejected a command's request, or did not respond."""

    code = "admin_unreachable"


# For the publisher.


class PublishFailed(AphlictError):
    """No admin server accepted the message. `code` is that of the last server's response, if it sent one."""

    code = "publish_failed"


class InvalidMessage(AphlictError):
    """A published body is not a valid message."""

    code = "invalid_message"
    http_status = 400


class InvalidJSON(InvalidMessage):
    """The body is not JSON, or neither an object nor a list of objects."""

    code = "invalid_json"


class NoSubscribers(InvalidMessage):
    """A message has no list of channels in `subscribers`."""

    code = "no_subscribers"


class NameTooLong(InvalidMessage):
    """A channel, instance or uniqueID is longer than `limits.name`."""

    code = "name_too_long"
    limit = "limits.name"


class TooManyMessages(InvalidMessage):
    """A list holds more messages than `limits.batch`."""

    code = "too_many_messages"
    http_status = 413
    limit = "limits.batch"


class TooManyChannels(InvalidMessage):
    """A message has more channels than `limits.channels`."""

    code = "too_many_channels"
    http_status = 413
    limit = "limits.channels"


class UnexpectedBody(InvalidMessage):
    """A request with a body on a client port."""

    code = "unexpected_body"
    http_status = 501


class BodyTooLarge(InvalidMessage):
    """The body is larger than `limits.body`."""

    code = "body_too_large"
    http_status = 413
    limit = "limits.body"


class NotFound(AphlictError):
    """The server has no such path."""

    code = "not_found"
    http_status = 404


class MethodNotAllowed(AphlictError):
    """The path exists, but not for this method. `allowed` is the value of `Allow`."""

    code = "method_not_allowed"
    http_status = 405
    keep_alive = True

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"{method} is not allowed for {path}: use {allowed}")
        self.allowed = allowed


class CrossSiteRequest(AphlictError):
    """A request to an admin server that a web page may have made without its user's intent."""

    code = "cross_site_request"
    http_status = 403
    limit = "admin.pages"


class HostNotAllowed(AphlictError):
    """A request to an admin server under a host name that is not known to be its own (DNS rebinding)."""

    code = "host_not_allowed"
    http_status = 403
    limit = "admin.hosts"


class Unauthorized(AphlictError):
    """A request to an admin server without its secret."""

    code = "unauthorized"
    http_status = 401
    limit = "admin.secret"
    challenges: tuple[str, ...] = ('Bearer realm="aphlict"', 'Basic realm="aphlict", charset="UTF-8"')


class BufferFull(InvalidMessage):
    """No memory is left for an incomplete request. The limit is counted where this is raised."""

    code = "buffer_full"
    http_status = 503
    retry_after = 1


class Overloaded(InvalidMessage):
    """More deliveries are queued than `limits.delivery_queue`."""

    code = "overloaded"
    http_status = 503
    limit = "limits.delivery_queue"
    retry_after = 1


class TooManyTraces(AphlictError):
    """More traces are requested at a time than are computed one after the other."""

    code = "too_many_traces"
    http_status = 503
    retry_after = 1


# For the client.


class BadRequest(AphlictError):
    """An HTTP request that cannot be served."""

    code = "bad_request"
    http_status = 400


class InvalidRequestLine(BadRequest):
    """The request does not begin with a request line: it may be a PROXY header, or TLS."""

    code = "invalid_request_line"


class HTTP11Required(BadRequest):
    """A WebSocket handshake that arrives as HTTP/1.0 (RFC 6455, 4.1)."""

    code = "http_1_1_required"


class ConnectionHeaderRequired(BadRequest):
    """A WebSocket handshake whose `Connection` does not contain `Upgrade`."""

    code = "connection_header_required"


class InvalidWebSocketKey(BadRequest):
    """A WebSocket handshake without a valid `Sec-WebSocket-Key`."""

    code = "invalid_websocket_key"


class UpgradeRequired(BadRequest):
    """A plain HTTP request to a path of a client port that serves WebSockets only."""

    code = "upgrade_required"
    http_status = 501  # what the Node.js server responds


class OriginForbidden(BadRequest):
    """A page of an origin that is not in `origins`. `limit_detail` describes the request."""

    code = "origin_forbidden"
    http_status = 403
    limit = "origins"

    def __init__(self, sentence: str, limit_detail: str) -> None:
        super().__init__(sentence)
        self.limit_detail = limit_detail


class BadProxyHeader(AphlictError):
    """A connection to a port with `proxy.protocol` that does not begin with a PROXY header."""

    code = "bad_proxy_header"


class HeadTooLarge(BadRequest):
    """The head of a request is larger than `limits.request_head`."""

    code = "request_head_too_large"
    http_status = 431
    limit = "limits.request_head"


class TooManyConnections(BadRequest):
    """The server has as many connections as `limits.connections` allows."""

    code = "too_many_connections"
    http_status = 503
    limit = "limits.connections"
    retry_after = 10


class TooManyPublishers(TooManyConnections):
    """The admin ports have as many connections as are reserved for them."""

    code = "too_many_publishers"
    limit = "admin.connections"


class TooManyFromAddress(BadRequest):
    """One address has as many connections as `limits.connections.address` allows."""

    code = "too_many_connections_from_address"
    http_status = 429
    limit = "limits.connections.address"
    retry_after = 10


class UnsupportedVersion(BadRequest):
    """The client does not speak version 13 of the WebSocket protocol (RFC 6455, 4.4)."""

    code = "unsupported_websocket_version"
    http_status = 426


class InvalidToken(BadRequest):
    """A token that is malformed, not signed by a known key, or not valid now."""

    code = "token_invalid"
    http_status = 401
    close_code = 4001
    challenges = ('Bearer realm="aphlict", error="invalid_token"',)


class TokenExpired(InvalidToken):
    """A token whose `exp` has passed."""

    code = "token_expired"


class TokenMissing(InvalidToken):
    """The port requires a token and the request has none."""

    code = "token_missing"
    challenges = ('Bearer realm="aphlict"',)


class Forbidden(BadRequest):
    """The token is valid, but does not allow this. Raised as one of the subclasses."""

    code = "forbidden"
    http_status = 403
    challenges = ('Bearer realm="aphlict", error="insufficient_scope"',)


class InstanceForbidden(Forbidden):
    """The token is for another instance."""

    code = "instance_forbidden"


class ChannelForbidden(Forbidden):
    """The token does not allow a channel."""

    code = "channel_forbidden"


class ProtocolError(AphlictError):
    """A frame that RFC 6455 does not allow."""

    code = "protocol_error"
    close_code = 1002


class InvalidUTF8(ProtocolError):
    """A text message that is not UTF-8."""

    code = "invalid_utf8"
    close_code = 1007


class FrameTimeout(ProtocolError):
    """A message of a client is not complete within `limits.client_frame.time`."""

    code = "frame_timeout"
    close_code = 1008
    limit = "limits.client_frame.time"


class FrameTooLarge(ProtocolError):
    """A frame or message of a client is larger than `limits.client_frame`."""

    code = "frame_too_large"
    close_code = 1009
    limit = "limits.client_frame"


class CommandError(AphlictError):
    """A client's command is invalid; the connection stays open. `id` is that of the command."""

    code = "invalid_command"
    http_status = 400

    def __init__(self, sentence: str, id: str | float | None = None) -> None:
        super().__init__(sentence)
        self.id = id


class TooManySubscriptions(CommandError):
    """A connection has as many subscriptions as `limits.subscriptions` allows."""

    code = "too_many_subscriptions"
    limit = "limits.subscriptions"


class SubscriptionsFull(AphlictError):
    """The subscriptions of all connections reach `limits.subscriptions.total`: the asking connection is closed."""

    code = "subscriptions_full"
    http_status = 503
    close_code = 1013
    limit = "limits.subscriptions.total"
    retry_after = 10


class HistoryEvicted(AphlictError):
    """The history has evicted a message that a replay has yet to send."""

    code = "history_evicted"
    close_code = 1013


# For the operator of a peer: `str()` continues "peer NAME: ".


class PeerError(AphlictError):
    """A peer did not accept what was sent to it."""

    code = "peer_error"


class PeerUnreachable(PeerError):
    """No connection to the peer can be made."""

    code = "peer_unreachable"


class PeerTLSError(PeerError):
    """The TLS handshake with the peer failed, or its certificate is not trusted."""

    code = "peer_tls_error"


class PeerDisconnected(PeerError):
    """The peer closed the connection before its response was complete."""

    code = "peer_disconnected"


class PeerTimeout(PeerError):
    """The peer did not respond in time."""

    code = "peer_timeout"


class BadResponse(PeerError):
    """The response is not one of an admin server."""

    code = "peer_bad_response"


class PeerHTTPError(PeerError):
    """The admin server responded with an error; `status` is the HTTP status.

    `taken`: of a list, so many messages from its start were published, and only the rest was refused.
    """

    code = "peer_http_error"

    def __init__(self, status: int, reason: str, taken: int = 0) -> None:
        super().__init__(f"it responded {status}: {reason}")
        self.status = status
        self.taken = taken
