"""A name server and broker that remembers what clients send: how the frames in this folder were made.

    python3 recorder.py PORT FOLDER      then point a RocketMQ client at 127.0.0.1:PORT

It answers just well enough for a client to go on, and writes the first few frames of each request code to
FOLDER/<code>-<n>.frame, length prefix included. An asked check-back (39) goes out when a half message was ended
with "unknown". Nothing here is a model for a broker: it keeps everything in memory and decides nothing.
"""
import json, os, socket, struct, sys, threading, time, zlib

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
KEEP = int(os.environ.get('KEEP', 4))            # frames kept per request code
HOLD = int(os.environ.get('HOLD', 20))            # seconds that a pull which finds nothing is held
lock = threading.RLock()
seen, queues, clients, halves = {}, {}, {}, {}
os.makedirs(FOLDER, exist_ok=True)


def read_binary_header(raw):
    """The ROCKETMQ serialisation: code i16, language u8, version i16, opaque i32, flag i32, remark, fields."""
    code, language, version, opaque, flag, n = struct.unpack('>hBhiii', raw[:17])
    at = 17 + n
    size, = struct.unpack('>i', raw[at:at + 4])
    at, end, ext = at + 4, at + 4 + size, {}
    while at < end:
        k, = struct.unpack('>h', raw[at:at + 2])
        key = raw[at + 2:at + 2 + k].decode()
        at += 2 + k
        v, = struct.unpack('>i', raw[at:at + 4])
        ext[key] = raw[at + 4:at + 4 + v].decode()
        at += 4 + v
    return dict(code=code, opaque=opaque, flag=flag, extFields=ext)


def frame(header, body=b'', binary=False):
    if binary:
        fields = b''.join(struct.pack('>h', len(k)) + k.encode() + struct.pack('>i', len(str(v).encode())) + str(v).encode()
                          for k, v in (header.get('extFields') or {}).items())
        remark = (header.get('remark') or '').encode()
        head = struct.pack('>hBhii', header['code'], 0, 0, header['opaque'], header['flag'])
        head += struct.pack('>i', len(remark)) + remark + struct.pack('>i', len(fields)) + fields
        mark = 1 << 24
    else:
        head = json.dumps({**header, 'language': 'JAVA', 'version': 0, 'serializeTypeCurrentRPC': 'JSON'}).encode()
        mark = 0
    return struct.pack('>II', 4 + len(head) + len(body), len(head) | mark) + head + body


def stored(topic, queue, offset, flag, sys_flag, born, body, props, reconsume=0):
    host = socket.inet_aton('127.0.0.1') + struct.pack('>I', PORT)
    t, p = topic.encode(), props.encode()
    rest = struct.pack('>iIIiqqiq', -626843481, zlib.crc32(body) & 0x7fffffff, queue, flag, offset, offset * 1000, sys_flag, born)
    rest += host + struct.pack('>q', int(time.time() * 1000)) + host + struct.pack('>iq', reconsume, 0)
    rest += struct.pack('>i', len(body)) + body + bytes([len(t)]) + t + struct.pack('>h', len(p)) + p
    return struct.pack('>i', 4 + len(rest)) + rest


def broker_data():
    return {'brokerName': 'recorder', 'cluster': 'c', 'enableActingMaster': False, 'brokerAddrs': {'0': '127.0.0.1:%d' % PORT}}


def answer(conn, h, body, send):
    """The reply's (code, extFields, body), or None for no reply."""
    code, ext = h['code'], h.get('extFields') or {}
    if code == 105:
        queue = {'brokerName': 'recorder', 'readQueueNums': 1, 'writeQueueNums': 1, 'perm': 6, 'topicSysFlag': 0, 'topicSynFlag': 0}
        text = json.dumps({'brokerDatas': [broker_data()], 'queueDatas': [queue], 'filterServerTable': {}})
        return 0, {}, (text if h.get('version', 0) > 400 else text.replace('"0":', '0:')).encode()
    if code == 106:
        return 0, {}, json.dumps({'brokerAddrTable': {'recorder': broker_data()}, 'clusterAddrTable': {'c': ['recorder']}}).encode()
    if code == 34:
        data = json.loads(body)
        for c in data.get('consumerDataSet', []):
            clients.setdefault(c['groupName'], {})[data['clientID']] = send
        return 0, {}, b''
    if code in (10, 310):
        topic, props = (ext['b'], ext['i']) if code == 310 else (ext['topic'], ext['properties'])
        flags = int(ext['f'] if code == 310 else ext['sysFlag'])
        log = queues.setdefault(topic, [])
        record = (0, flags, int(time.time() * 1000), body, props)
        if flags & 0xC == 4:
            halves[len(halves) + 1] = (topic, record)
            offset = len(halves)
        else:
            log.append(record)
            offset = len(log) - 1
        key = dict(p.split('\1', 1) for p in props.split('\2') if p).get('UNIQ_KEY', '')
        id_ = '7F000001%08X%016X' % (PORT, offset)
        return 0, {'msgId': id_, 'queueId': '0', 'queueOffset': str(offset), 'transactionId': key, 'MSG_REGION': 'DefaultRegion'}, b''
    if code == 320:
        return 0, {'msgId': '7F000001%08X%016X' % (PORT, 0), 'queueId': '0', 'queueOffset': '0', 'transactionId': ''}, b''
    if code == 37:
        if ext['commitOrRollback'] == '0' and ext.get('fromTransactionCheck') in ('false', '0'):
            threading.Timer(1, ask, (int(ext['commitLogOffset']), ext, send)).start()
        return None
    if code == 38:
        return 0, {}, json.dumps({'consumerIdList': sorted(clients.get(ext['consumerGroup'], {}))}).encode()
    if code == 11:
        at, log = int(ext['queueOffset']), queues.get(ext['topic'], [])
        if at >= len(log):
            time.sleep(min(HOLD, int(ext.get('suspendTimeoutMillis') or 0) / 1000))
            return 19, {'nextBeginOffset': str(at), 'minOffset': '0', 'maxOffset': str(len(log)), 'suggestWhichBrokerId': '0'}, b''
        out = b''.join(stored(ext['topic'], 0, at + i, *r) for i, r in enumerate(log[at:]))
        return 0, {'nextBeginOffset': str(len(log)), 'minOffset': '0', 'maxOffset': str(len(log)), 'suggestWhichBrokerId': '0'}, out
    if code in (14, 29, 30, 31):
        return 0, {'offset': '0' if code != 30 else str(len(queues.get(ext['topic'], [])))}, b''
    if code == 41:
        return 0, {}, json.dumps({'lockOKMQSet': json.loads(body)['mqSet']}).encode()
    return 0, {}, b''


def ask(origin, ext, send):
    topic, record = halves[origin]
    fields = {'tranStateTableOffset': str(origin), 'commitLogOffset': str(origin), 'msgId': ext['msgId'], 'transactionId': ext['msgId'],
              'offsetMsgId': '7F000001%08X%016X' % (PORT, origin)}
    send({'code': 39, 'opaque': 0, 'flag': 2, 'extFields': fields}, stored(topic, 0, origin, *record))


def serve(conn):
    out = threading.Lock()
    stream = conn.makefile('rb')
    binary = [False]

    def send(header, body=b''):
        with out:
            conn.sendall(frame(header, body, binary[0]))

    def reply(h, body):
        r = answer(conn, h, body, send)
        if r is not None and not h['flag'] & 2:
            send({'code': r[0], 'opaque': h['opaque'], 'flag': 1, 'extFields': r[1]}, r[2])

    while True:
        head = stream.read(4)
        if len(head) < 4:
            return
        raw = stream.read(struct.unpack('>I', head)[0])
        mark, = struct.unpack('>I', raw[:4])
        n = mark & 0xffffff
        binary[0] = mark >> 24 == 1
        h = read_binary_header(raw[4:4 + n]) if binary[0] else json.loads(raw[4:4 + n])
        if h['flag'] & 1:
            continue
        with lock:
            k = seen[h['code']] = seen.get(h['code'], 0) + 1
        if k <= KEEP:
            with open(os.path.join(FOLDER, '%03d-%d.frame' % (h['code'], k)), 'wb') as f:
                f.write(head + raw)
        threading.Thread(target=reply, args=(h, raw[4 + n:]), daemon=True).start()


with socket.create_server(('127.0.0.1', PORT)) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
