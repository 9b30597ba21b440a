// A first transaction from Node: an order goes into a database and onto a topic, both or neither.
//
// The answer about order 2 is left out on purpose, as if this program had died there: Mezzo asks back after
// `transaction.timeout` (6 s), and the database has the answer.
//
//     npm install ali-ons@3.12.0 libsql@0.5.29     # libsql: SQLite with the API of better-sqlite3
//     node first_transaction.mjs [NAME_SERVER]     # default: 127.0.0.1:9876
import { randomUUID } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import ons from 'ali-ons';
import Database from 'libsql';
import { COMMIT, ROLLBACK, TransactionProducer, UNKNOWN } from './transaction_producer.mjs';

const run = randomUUID().slice(0, 8), topic = 'orders-' + run;        // fresh names, so that it can be run again
const logger = { debug() {}, info() {}, warn() {}, error: console.error };
const options = { nameSrv: process.argv[2] ?? '127.0.0.1:9876', httpclient: {}, logger }; // httpclient is not used
const showError = error => error.code === 17 || console.error(error); // 17: the group's retry topic is only being made

const database = new Database(mkdtempSync(tmpdir() + '/orders-') + '/orders.db');
database.exec('CREATE TABLE orders (id TEXT PRIMARY KEY, name TEXT, state TEXT NOT NULL)');

const placeOrder = name => transactionId => {                 // the local transaction: Mezzo holds the half message now
  try {
    database.prepare("INSERT INTO orders VALUES (?, ?, 'placed')").run(transactionId, name);
    return name === 'order 2' ? UNKNOWN : COMMIT;
  } catch {
    return UNKNOWN;                                           // when in doubt, let Mezzo ask
  }
};

function checkBack(transactionId) {                           // Mezzo asks: what became of this transaction?
  try {                                                       // not placed? then it must not be placed later either
    database.prepare("INSERT OR IGNORE INTO orders VALUES (?, 'no order', 'void')").run(transactionId);
    const { name, state } = database.prepare('SELECT name, state FROM orders WHERE id = ?').get(transactionId);
    console.log('asked about', name);
    return state === 'placed' ? COMMIT : ROLLBACK;
  } catch {
    return UNKNOWN;
  }
}

const producer = new TransactionProducer({ ...options, producerGroup: 'producers-' + run }, checkBack);
producer.on('error', showError);
await producer.ready();
await producer.createTopic(topic);
for (const name of ['order 1', 'order 2']) {
  await producer.sendInTransaction(new ons.Message(topic, 'new', name), placeOrder(name));
}

const consumer = new ons.Consumer({ ...options, consumerGroup: 'consumers-' + run });
consumer.on('error', showError);
let received = 0;
consumer.subscribe(topic, '*', async message => {
  console.log('received', message.body.toString());
  if (++received === 2) process.exit(0);
});
setTimeout(() => process.exit(1), 25_000);                    // well past the check-back
