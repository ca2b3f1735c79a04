"""Publish a message: python publish.py CHANNEL TEXT [ADMIN_URL ...]."""

import os
import sys

import aphlict

channel, text, *servers = sys.argv[1:]
message = {"type": "notification", "text": text}
secret = os.environ.get("APHLICT_SECRET")  # admin.secret of the server, if it has one
servers = servers or ["http://127.0.0.1:22281/"]
receipt = aphlict.publish(message, [channel], servers=servers, secret=secret, timeout=2)
print(f"sent {receipt.unique_id} to {receipt.matched} clients of node {receipt.fingerprint}")
