"""Everything that can go wrong: one tree; each class knows its sentence, and what it maps to outside."""


class AphlictError(Exception):
    """The root. `str()` is one sentence for the person who has to act.

    The class attributes are the table of what an error becomes outside: `http_status` in an HTTP answer,
    `close_code` on a WebSocket (RFC 6455, 7.4), `exit_status` of a command (`docs/operations.md`).
    """

    http_status = 500
    close_code = 1011
    exit_status = 1
    limit: str | None = None  # the configuration key of the limit that was passed
    retry_after: int | None = None  # seconds after which trying again makes sense
    challenge: str | None = None  # the WWW-Authenticate of an HTTP answer
    channels: tuple[str, ...] = ()  # those refused, where others of the same request might not be


# The operator has to act.


class UsageError(AphlictError):
    """The command line cannot be understood."""

    exit_status = 77


class ConfigError(AphlictError):
    """The configuration is wrong: the sentence names key, value and what was expected."""

    exit_status = 77


class CertificateError(ConfigError):
    """A key, certificate or chain cannot serve."""


class AlreadyRunning(AphlictError):
    """A server with this pidfile runs."""

    exit_status = 77


class BindError(AphlictError):
    """A listener could not be opened."""


class AddressInUse(BindError):
    """Another process holds the port."""


class FileError(AphlictError):
    """A pidfile or a log file cannot be made, read or written."""


class StartFailed(AphlictError):
    """The server ended before it was ready."""


class ReloadRejected(AphlictError):
    """A worker cannot use the new configuration, so that none does."""


class NotPermitted(AphlictError):
    """The server belongs to another user."""


class NoAnswer(AphlictError):
    """The admin server refused what a command asked of it, or did not answer."""


# The publisher has to act.


class InvalidMessage(AphlictError):
    """A published body is not a message."""

    http_status = 400


class InvalidJSON(InvalidMessage):
    """The body is not JSON, or not an object or a list of objects."""


class NoSubscribers(InvalidMessage):
    """A message does not say which channels it is for."""


class NameTooLong(InvalidMessage):
    """A channel, instance or uniqueID is longer than a name may be."""

    limit = "limits.name"


class TooManyMessages(InvalidMessage):
    """A list holds more messages than one request may publish."""

    http_status = 413
    limit = "limits.batch"


class TooManyChannels(InvalidMessage):
    """A message names more channels than one may."""

    http_status = 413
    limit = "limits.channels"


class UnexpectedBody(InvalidMessage):
    """A request with a body on a client port."""

    http_status = 501


class BodyTooLarge(InvalidMessage):
    """The body is larger than `limits.body`."""

    http_status = 413
    limit = "limits.body"


class CrossSiteRequest(AphlictError):
    """A request to an admin server that a web page may have made, without anyone's doing."""

    http_status = 403
    limit = "admin.pages"


class HostNotAllowed(AphlictError):
    """A request to an admin server under a name that is not known to be the server's own."""

    http_status = 403
    limit = "admin.hosts"


class Unauthorized(AphlictError):
    """A request to an admin server without its secret."""

    http_status = 401
    limit = "admin.secret"
    challenge = 'Bearer realm="aphlict"'


class BufferFull(InvalidMessage):
    """There is no memory for a request that arrives slowly. It is counted with its limit where it is refused."""

    http_status = 503
    retry_after = 1


class Overloaded(InvalidMessage):
    """More is waiting to be delivered than this server lets wait."""

    http_status = 503
    limit = "limits.delivery_queue"
    retry_after = 1


# The browser, or who pretends to be one, has to act.


class BadRequest(AphlictError):
    """An HTTP head that cannot become a WebSocket."""

    http_status = 400


class OriginForbidden(BadRequest):
    """A page of an origin that `origins` does not name. It is counted with the origin where it is raised."""

    http_status = 403


class BadProxyHeader(AphlictError):
    """A connection on a port with `proxy.protocol` that does not begin as it should."""


class HeadTooLarge(BadRequest):
    """The head of a request is larger than `limits.request_head`."""

    http_status = 431
    limit = "limits.request_head"


class InstanceTooLong(BadRequest):
    """The path of a request names an instance that is longer than a name may be."""

    limit = "limits.name"


class TooManyConnections(BadRequest):
    """More connections than this server has room for."""

    http_status = 503
    limit = "limits.connections"
    retry_after = 10


class TooManyPublishers(TooManyConnections):
    """More connections to admin ports than are kept free for them."""

    limit = "admin.connections"


class TooManyFromAddress(BadRequest):
    """More connections than one address may have."""

    http_status = 429
    limit = "limits.connections.address"
    retry_after = 10


class UnsupportedVersion(BadRequest):
    """The browser speaks another version of the WebSocket protocol than 13 (RFC 6455, 4.4)."""

    http_status = 426


class InvalidToken(BadRequest):
    """A token that proves nothing, or nothing any more."""

    http_status = 401
    close_code = 4001
    challenge = 'Bearer realm="aphlict", error="invalid_token"'


class TokenMissing(InvalidToken):
    """A token is asked for, and there is none."""

    challenge = 'Bearer realm="aphlict"'


class Forbidden(BadRequest):
    """The token is good, but not for this."""

    http_status = 403
    challenge = 'Bearer realm="aphlict", error="insufficient_scope"'


class ProtocolError(AphlictError):
    """A frame that RFC 6455 does not allow."""

    close_code = 1002


class InvalidUTF8(ProtocolError):
    """A text message that is not UTF-8."""

    close_code = 1007


class FrameTimeout(ProtocolError):
    """A message from a browser that has begun and does not become whole."""

    close_code = 1008
    limit = "limits.client_frame.time"


class FrameTooLarge(ProtocolError):
    """A frame or a message from a browser beyond `limits.client_frame`."""

    close_code = 1009
    limit = "limits.client_frame"


class CommandError(AphlictError):
    """A command of a browser that cannot be done; the connection stays. `id`: what the answer must bear."""

    http_status = 400

    def __init__(self, sentence: str, id: str | float | None = None) -> None:
        super().__init__(sentence)
        self.id = id


class TooManySubscriptions(CommandError):
    """A connection wants more channels than it may have."""

    limit = "limits.subscriptions"


class SubscriptionsFull(AphlictError):
    """All connections together have as many subscriptions as there is memory for: the one that asks is closed."""

    http_status = 503
    close_code = 1013
    limit = "limits.subscriptions.total"
    retry_after = 10


class HistoryEvicted(AphlictError):
    """A message that a replay has yet to send is no longer kept."""

    close_code = 1013


# The operator of another node has to act: `str()` goes on from "peer NAME: ".


class PeerError(AphlictError):
    """Another node of the cluster did not take what it was sent."""


class PeerUnreachable(PeerError):
    """No connection could be made."""


class PeerTLSError(PeerError):
    """A connection was made, but not a TLS session with a certificate that can be believed."""


class PeerDisconnected(PeerError):
    """The connection ended before a whole answer had come."""


class PeerTimeout(PeerError):
    """No answer came in time."""


class BadResponse(PeerError):
    """What came is not an answer of an admin server."""


class PeerHTTPError(PeerError):
    """An admin server that answers with an error; `status` is its HTTP status.

    `taken`: of a list, the first so many messages were published, and only the others were refused.
    """

    def __init__(self, status: int, reason: str, taken: int = 0) -> None:
        super().__init__(f"it answered {status}: {reason}")
        self.status = status
        self.taken = taken
