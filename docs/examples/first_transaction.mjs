// A first transaction from Node: an order goes into a database and onto a topic, both or neither.
//
// ali-ons speaks RocketMQ's remoting protocol and can send a half message, but it has no transactional producer: it
// never sends END_TRANSACTION and hears no check-back. Part 1 adds both, in 30 lines over ali-ons's own connection.
// Part 2 is the program: a half message, the local transaction (in SQLite), a commit, a check-back and a consumer.
// The answer about order 2 is left out on purpose, as if this program had died there: Mezzo asks back after
// `transaction.timeout` (6 s), and the database has the answer.
//
//     npm install ali-ons@3.12.0 libsql@0.5.29     # libsql: SQLite with the API of better-sqlite3
//     node first_transaction.mjs [NAME_SERVER]     # default: 127.0.0.1:9876
import { randomUUID } from 'node:crypto';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import ons from 'ali-ons';
import RemotingCommand from 'ali-ons/lib/protocol/command/remoting_command.js';
import Database from 'libsql';

// Part 1: a transactional producer.
const END_TRANSACTION = 37, CHECK_TRANSACTION_STATE = 39;     // request codes
const UNKNOWN = 0, COMMIT = 8, ROLLBACK = 12;                 // END_TRANSACTION's field commitOrRollback

class TransactionProducer extends ons.Producer {
  constructor(options, checkBack) {
    super({ ...options, retryTimesWhenSendFailed: 0 });       // a retry could prepare the same message twice
    this._mqClient.on('request', ({ data }, broker) => {      // what the broker sends of its own accord
      if (data.code !== CHECK_TRANSACTION_STATE) return;
      const { transactionId, commitLogOffset, tranStateTableOffset } = data.extFields;
      this.end(broker, { transactionId, commitLogOffset, tranStateTableOffset, fromTransactionCheck: true },
        checkBack(transactionId)).catch(console.error);
    });
  }

  async sendInTransaction(message, localTransaction) {
    const transactionId = randomUUID().replaceAll('-', '').toUpperCase();
    Object.assign(message.properties, { TRAN_MSG: 'true', PGROUP: this.producerGroup, UNIQ_KEY: transactionId });
    const half = await this.send(message);                    // stored, and invisible until it is decided
    const commitLogOffset = BigInt('0x' + half.msgId.slice(-16)).toString();
    await this.end(this._mqClient.findBrokerAddressInPublish(half.messageQueue.brokerName),
      { transactionId, commitLogOffset, tranStateTableOffset: half.queueOffset }, localTransaction(transactionId));
  }

  async end(broker, transaction, commitOrRollback) {
    if (commitOrRollback === UNKNOWN) return;                 // nothing to say: the broker will ask
    const answer = await this._mqClient.invoke(broker, RemotingCommand.createRequestCommand(END_TRANSACTION,
      { producerGroup: this.producerGroup, msgId: transaction.transactionId, ...transaction, commitOrRollback }));
    if (answer.code !== 0) throw new Error(`END_TRANSACTION refused: ${answer.code} ${answer.remark}`);
  }
}

// Part 2: the program.
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
await producer._mqClient.updateTopicRouteInfoFromNameServer(topic, true, producer); // lets the broker create the topic
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
