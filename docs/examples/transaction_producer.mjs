// A transactional producer over ali-ons, which speaks RocketMQ's remoting protocol and can send a half message, but never
// sends END_TRANSACTION and hears no check-back. Both are one small request over the connection that it already has; they
// go through two of its internals (_mqClient and RemotingCommand), which is why its version is pinned: ali-ons@3.12.0.
import { randomUUID } from 'node:crypto';
import ons from 'ali-ons';
import RemotingCommand from 'ali-ons/lib/protocol/command/remoting_command.js';

const END_TRANSACTION = 37, CHECK_TRANSACTION_STATE = 39;     // request codes
export const UNKNOWN = 0, COMMIT = 8, ROLLBACK = 12;          // END_TRANSACTION's field commitOrRollback

export class TransactionProducer extends ons.Producer {
  constructor(options, checkBack) {
    super({ ...options, retryTimesWhenSendFailed: 0 });       // a retry could prepare the same message twice
    this._mqClient.on('request', ({ data }, broker) => {      // what the broker sends of its own accord
      if (data.code !== CHECK_TRANSACTION_STATE) return;
      const { transactionId, commitLogOffset, tranStateTableOffset } = data.extFields;
      this.end(broker, { transactionId, commitLogOffset, tranStateTableOffset, fromTransactionCheck: true },
        checkBack(transactionId)).catch(console.error);
    });
  }

  async createTopic(topic) {                                  // lets the broker create it: ali-ons does not by itself
    await this._mqClient.updateTopicRouteInfoFromNameServer(topic, true, this);
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
