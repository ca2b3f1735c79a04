"""Publishes a message: python publish.py CHANNEL TEXT [ADMIN_URL ...]."""

import os
import sys

import aphlict

channel, text, *servers = sys.argv[1:]
message = {"type": "notification", "text": text}
secret = os.environ.get("APHLICT_SECRET")  # admin.secret of the server, if it has one
servers = servers or ["http://127.0.0.1:22281/"]
receipt = aphlict.publish(message, [channel], servers=servers, secret=secret, timeout=2)
print(f"{receipt.unique_id} goes to {receipt.matched} browsers of node {receipt.fingerprint}")
