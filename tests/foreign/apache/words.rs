//! Frames as Apache's Java code writes them (RemotingCommand, RemotingSerializable by fastjson, RocketMQSerializable).

use std::fmt::Write as _;

use mezzo_protocol::message::tag::java_hash;

/// Which release speaks, and how its headers are set to be written (`ROCKETMQ_SERIALIZE_TYPE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    /// 4.9.8, JSON: the default.
    V4,
    /// 5.3.3 with binary headers.
    V5,
}

impl Release {
    /// The ordinal of the release in `MQVersion`.
    const fn version(self) -> i32 {
        match self {
            Self::V4 => 409,
            Self::V5 => 479,
        }
    }

    /// How the table of deviations calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::V4 => "apache-4.9.8",
            Self::V5 => "apache-5.3.3",
        }
    }
}

/// A command of the broker's.
#[derive(Debug, Clone)]
pub(crate) struct Words {
    pub(crate) code: i32,
    /// Bit 0: a reply. Bit 1: nobody answers.
    pub(crate) flag: i32,
    pub(crate) opaque: i32,
    pub(crate) remark: Option<String>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Words {
    /// A reply to the request with this `opaque`.
    pub(crate) const fn reply(opaque: i32, code: i32) -> Self {
        Self { code, flag: 1, opaque, remark: None, fields: Vec::new(), body: Vec::new() }
    }

    /// A request to a client that nobody answers.
    pub(crate) const fn oneway(opaque: i32, code: i32) -> Self {
        Self { code, flag: 2, opaque, remark: None, fields: Vec::new(), body: Vec::new() }
    }

    pub(crate) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remark = Some(remark.into());
        self
    }

    pub(crate) fn field(mut self, name: &str, value: impl ToString) -> Self {
        self.fields.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The frame.
    pub(crate) fn bytes(&self, release: Release) -> Vec<u8> {
        let (kind, header) = match release {
            Release::V4 => (0, self.json(release).into_bytes()),
            Release::V5 => (1, self.binary(release)),
        };
        let mut frame = Vec::new();
        frame.extend(u32::try_from(4 + header.len() + self.body.len()).unwrap().to_be_bytes());
        frame.extend((u32::try_from(header.len()).unwrap() | kind << 24).to_be_bytes());
        frame.extend(header);
        frame.extend(&self.body);
        frame
    }

    fn json(&self, release: Release) -> String {
        let mut text = format!("{{\"code\":{},", self.code);
        if !self.fields.is_empty() {
            text.push_str("\"extFields\":{");
            for (number, (name, value)) in in_java_order(&self.fields, 16).into_iter().enumerate() {
                let comma = if number == 0 { "" } else { "," };
                write!(text, "{comma}{}:{}", quoted(name), quoted(value)).unwrap();
            }
            text.push_str("},");
        }
        write!(text, "\"flag\":{},\"language\":\"JAVA\",\"opaque\":{},", self.flag, self.opaque).unwrap();
        if let Some(remark) = &self.remark {
            write!(text, "\"remark\":{},", quoted(remark)).unwrap();
        }
        write!(text, "\"serializeTypeCurrentRPC\":\"JSON\",\"version\":{}}}", release.version()).unwrap();
        text
    }

    fn binary(&self, release: Release) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend(i16::try_from(self.code).unwrap().to_be_bytes());
        header.push(0); // JAVA
        header.extend(i16::try_from(release.version()).unwrap().to_be_bytes());
        header.extend(self.opaque.to_be_bytes());
        header.extend(self.flag.to_be_bytes());
        let remark = self.remark.as_deref().unwrap_or_default().as_bytes();
        header.extend(u32::try_from(remark.len()).unwrap().to_be_bytes());
        header.extend(remark);
        // custom headers write themselves in the order of their fields; the table of further ones comes behind
        let mut fields = Vec::new();
        for (name, value) in &self.fields {
            fields.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            fields.extend(name.as_bytes());
            fields.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            fields.extend(value.as_bytes());
        }
        header.extend(u32::try_from(fields.len()).unwrap().to_be_bytes());
        header.extend(fields);
        header
    }
}

/// A string as fastjson quotes it when nothing else is asked for: letters of all languages stand as they are.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if (control as u32) < 0x20 => write!(quoted, "\\u{:04X}", control as u32).unwrap(),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Pairs in the order in which a `java.util.HashMap` of `room` buckets gives them; of two with one name the last stays.
pub(crate) fn in_java_order(pairs: &[(String, String)], room: usize) -> Vec<(&str, &str)> {
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for (name, value) in pairs {
        match kept.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => kept.push((name, value)),
        }
    }
    let mut buckets = room;
    while kept.len() * 4 > buckets * 3 {
        buckets *= 2;
    }
    let mask = u32::try_from(buckets - 1).unwrap();
    kept.sort_by_key(|(name, _)| {
        let hash = java_hash(name).cast_unsigned();
        (hash ^ hash >> 16) & mask
    });
    kept
}

/// Where a topic lives, as name servers answer; `addresses` are those of the master and the slave. With `standard` the
/// numbers that are keys are quoted.
pub(crate) fn route(broker: &str, addresses: &[String; 2], queues: u32, standard: bool) -> String {
    let data = broker_data(broker, addresses, if standard { "\"" } else { "" });
    format!(
        "{{\"brokerDatas\":[{data}],\"filterServerTable\":{{}},\"queueDatas\":[{{\"brokerName\":\"{broker}\",\"perm\":6,\
         \"readQueueNums\":{queues},\"topicSysFlag\":0,\"writeQueueNums\":{queues}}}]}}"
    )
}

/// All brokers of the cluster; never standard JSON.
pub(crate) fn cluster(broker: &str, addresses: &[String; 2]) -> String {
    let data = broker_data(broker, addresses, "");
    format!(
        "{{\"brokerAddrTable\":{{\"{broker}\":{data}}},\"clusterAddrTable\":{{\"DefaultCluster\":[\"{broker}\"]}}}}"
    )
}

fn broker_data(broker: &str, [master, slave]: &[String; 2], quote: &str) -> String {
    format!(
        "{{\"brokerAddrs\":{{{quote}0{quote}:\"{master}\",{quote}1{quote}:\"{slave}\"}},\"brokerName\":\"{broker}\",\
         \"cluster\":\"DefaultCluster\",\"enableActingMaster\":false}}"
    )
}

#[test]
fn replies_are_written_as_java_writes_them() {
    let names = ["msgId", "queueId", "queueOffset", "transactionId", "MSG_REGION", "TRACE_ON"];
    let reply = names.into_iter().fold(Words::reply(7, 0), |reply, name| reply.field(name, 1));
    // the order of the fields is what Java 17 prints for such a table
    let expected = "{\"code\":0,\"extFields\":{\"queueId\":\"1\",\"TRACE_ON\":\"1\",\"MSG_REGION\":\"1\",\"msgId\":\"1\",\
                    \"queueOffset\":\"1\",\"transactionId\":\"1\"},\"flag\":1,\"language\":\"JAVA\",\"opaque\":7,\
                    \"serializeTypeCurrentRPC\":\"JSON\",\"version\":409}";
    let bytes = reply.bytes(Release::V4);
    assert_eq!(std::str::from_utf8(&bytes[8..]).unwrap(), expected);
    let length = u8::try_from(expected.len()).unwrap();
    assert_eq!(bytes[..8], [0, 0, 0, 4 + length, 0, 0, 0, length]);
    let binary = Words::reply(7, 22).remark("no").bytes(Release::V5);
    let expected = [0, 22, 0, 1, 223, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2, b'n', b'o', 0, 0, 0, 0];
    assert_eq!(binary[..8], [0, 0, 0, 27, 1, 0, 0, 23]);
    assert_eq!(binary[8..], expected);
}
