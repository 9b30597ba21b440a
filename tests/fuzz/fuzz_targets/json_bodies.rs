//! Any bytes as a JSON body: heartbeats, locks, routes, clusters and group settings are read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mezzo_protocol::message::tag::TagFilter;
use mezzo_protocol::remoting::body::route::{KeyStyle, TopicRouteData};
use mezzo_protocol::remoting::body::{
    cluster::ClusterInfo, group::GroupConfig, heartbeat::HeartbeatData, lock,
};

fuzz_target!(|data: &[u8]| {
    if let Ok(route) = TopicRouteData::decode(data) {
        for style in [KeyStyle::Standard, KeyStyle::Unquoted] {
            assert_eq!(TopicRouteData::decode(&route.encode(style)), Ok(route.clone()));
        }
    }
    if let Ok(heartbeat) = HeartbeatData::decode(data) {
        for subscription in heartbeat.consumer_data_set.iter().flat_map(|group| &group.subscription_data_set)
        {
            let _ = TagFilter::parse(&subscription.sub_string);
        }
        assert_eq!(HeartbeatData::decode(&heartbeat.encode()), Ok(heartbeat));
    }
    let _ = (ClusterInfo::decode(data), GroupConfig::decode(data), lock::LockBatchRequest::decode(data));
});
