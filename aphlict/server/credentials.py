"""What a server reads from files beside its configuration: its TLS, and the keys of the tokens that it asks for."""

import ssl
from typing import NamedTuple

from aphlict.config.files import Read, read_file
from aphlict.config.settings import ServerSettings
from aphlict.tls.authorities import Authorities, load_authorities
from aphlict.tls.context import server_context
from aphlict.tokens.key_set import KeySet
from aphlict.tokens.key_set import load as load_keys


class Credentials(NamedTuple):
    """What one server proves itself with, and verifies browsers and publishers with; None where it does not."""

    tls: ssl.SSLContext | None = None
    keys: KeySet | None = None
    authorities: Authorities | None = None


def load(server: ServerSettings, read: Read = read_file) -> Credentials:
    """Read the files of a server. Raises ConfigError, of which CertificateError is one."""
    return Credentials(
        server_context(server, read) if server.tls else None,
        load_keys(server, read),
        load_authorities(server, server.ssl_ca, read) if server.ssl_ca else None,
    )
