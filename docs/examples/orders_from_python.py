"""Sends three orders to the topic orders-from-python, for client/examples/from_python.rs to receive.

    pip install rocketmq-python-cvs==2.1.0.3                                   # brings librocketmq, Apache's C++ client
    pip install --no-deps --ignore-installed rocketmq-client-python==2.0.0     # its Python side
    python orders_from_python.py [NAME_SERVER]                                 # default: 127.0.0.1:9876
"""
import os, sys
from rocketmq.client import Message, Producer

producer = Producer("waiters")
producer.set_name_server_address(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9876")
producer.start()
for number, (what, tag) in enumerate([("one coffee", "drink"), ("two croissants", "food"), ("one tea", "drink")], 1):
    order = Message("orders-from-python")
    order.set_keys(f"order-{number}")
    order.set_tags(tag)
    order.set_property("table", str(number + 10))
    order.set_body(what)
    print("sent", what, producer.send_sync(order).msg_id, flush=True)
os._exit(0)                                                       # at once: this client crashes in its own shutdown
