"""Tokens in addresses, which are for servers and not for consoles."""

from urllib.parse import unquote, urlsplit, urlunsplit

NAME = "token="


def take_token(url: str) -> tuple[str, str | None]:
    """The URL without the token in its query, and that token. Raises ValueError where it is no URL."""
    parts = urlsplit(url)
    fields = parts.query.split("&")
    tokens = [unquote(each.removeprefix(NAME)) for each in fields if each.startswith(NAME)]
    rest = "&".join(each for each in fields if not each.startswith(NAME))
    return (urlunsplit(parts._replace(query=rest)), tokens[0]) if tokens else (url, None)
