"""A first transaction from Python: an order goes into a database and onto a topic, both or neither.

Shows a half message, the local transaction (in SQLite), a commit, a check-back and a consumer. The answer about order 2
is left out on purpose, as if this program had died there: Mezzo asks back after `transaction.timeout` (6 s), and the
database has the answer.

    pip install rocketmq-python-cvs==2.1.0.3                                   # brings librocketmq, Apache's C++ client
    pip install --no-deps --ignore-installed rocketmq-client-python==2.0.0     # its Python side, with transactions
    python first_transaction.py [NAME_SERVER]                                  # default: 127.0.0.1:9876
"""
import os, sqlite3, sys, tempfile, threading, uuid
from rocketmq.client import ConsumeStatus, Message, PushConsumer, TransactionMQProducer, TransactionStatus

NAME_SERVER = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9876"
RUN = uuid.uuid4().hex[:8]                                        # fresh names, so that it can be run again
DATABASE = os.path.join(tempfile.mkdtemp(), "orders.db")

def place_order(message, _):                                      # the local transaction; Mezzo holds the half message
    try:
        with sqlite3.connect(DATABASE) as db:                     # commits at its end, or rolls back
            db.execute("INSERT INTO orders VALUES (?, 'placed')", (str(message),))
        return TransactionStatus.UNKNOWN if str(message) == "order 2" else TransactionStatus.COMMIT
    except Exception:                                             # one that leaves a callback makes an undefined answer
        return TransactionStatus.UNKNOWN                          # when in doubt, let Mezzo ask

def check_back(message):                                          # Mezzo asks: what became of this order?
    try:
        print("asked about", message, flush=True)
        with sqlite3.connect(DATABASE) as db:                     # not placed? then it must not be placed later either
            db.execute("INSERT OR IGNORE INTO orders VALUES (?, 'void')", (str(message),))
            state, = db.execute("SELECT state FROM orders WHERE id = ?", (str(message),)).fetchone()
        return TransactionStatus.COMMIT if state == "placed" else TransactionStatus.ROLLBACK
    except Exception:
        return TransactionStatus.UNKNOWN

with sqlite3.connect(DATABASE) as db:
    db.execute("CREATE TABLE orders (id TEXT PRIMARY KEY, state TEXT NOT NULL)")
producer = TransactionMQProducer("producers-" + RUN, check_back)
producer.set_name_server_address(NAME_SERVER)
producer.start()
for order in ("order 1", "order 2"):
    message = Message("orders-" + RUN)
    message.set_body(order)
    producer.send_message_in_transaction(message, place_order)

arrived = threading.Semaphore(0)
def deliver(message):
    print("received", message, flush=True)
    arrived.release()
    return ConsumeStatus.CONSUME_SUCCESS

consumer = PushConsumer("consumers-" + RUN)
consumer.set_name_server_address(NAME_SERVER)
consumer.subscribe("orders-" + RUN, deliver)
consumer.start()
both = all(arrived.acquire(timeout=15) for _ in range(2))
os._exit(0 if both else 1)                                        # at once: this client crashes in its own shutdown
