# One session of websocket-client 0.4.1 under Python 2.7: it spoke draft Hixie-76.
import base64
import sys

import websocket

websocket.setdefaulttimeout(20)
client = websocket.create_connection(sys.argv[1])
sent = "".join(chr(number) for number in range(256)) * 100
client.send(base64.b64encode(sent))
received = ""
while len(received) < len(sent):
    received += base64.b64decode(client.recv())
assert received == sent
print("echoed")
client.close()
print("closed")
