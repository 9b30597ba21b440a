//! What the name server answers: routes (105), the cluster (106), topics (206), and the few requests that clients and
//! administration tools send beside them. It reads the broker's own topics, so nothing has to be registered.

use mezzo_protocol::remoting::{
    body::{
        cluster::ClusterInfo,
        route::{BrokerData, KeyStyle, MASTER_ID, QueueData, TopicRouteData},
    },
    header::topic::{DeleteTopicHeader, RouteHeader},
    response_code::ResponseCode,
};

use super::{
    response,
    turn::{Handled, Request, Step, Turn},
};
use crate::service::route::{Route, Routes};

/// GET_ROUTEINFO_BY_TOPIC (105). Code 17 for an unknown topic: producers then look up TBW102 and create it by a send.
pub(crate) fn route(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = RouteHeader::decode(&request.header.ext)?;
    let routes = &turn.services.routes;
    let Some(found) = routes.find(&header.topic) else {
        let remark = format!("no route to the topic {}: it does not exist", header.topic);
        turn.refuse(request, ResponseCode::TOPIC_NOT_EXIST, remark);
        return Ok(Step::Done);
    };
    let keys = if header.wants_standard_json(request.header.version) {
        KeyStyle::Standard
    } else {
        KeyStyle::Unquoted
    };
    let body = route_data(routes, &found).encode(keys);
    turn.reply(request, response::ok().with_body(body));
    Ok(Step::Done)
}

/// GET_BROKER_CLUSTER_INFO (106), with unquoted keys as all servers write them.
pub(crate) fn cluster(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let routes = &turn.services.routes;
    let mut info = ClusterInfo::default();
    info.broker_addr_table.insert(routes.broker_name().to_owned(), broker_data(routes));
    info.cluster_addr_table.insert(routes.cluster().to_owned(), vec![routes.broker_name().to_owned()]);
    turn.reply(request, response::ok().with_body(info.encode(KeyStyle::Unquoted)));
    Ok(Step::Done)
}

/// GET_KV_CONFIG (101): nothing is kept under keys, which clients read as "use your default".
pub(crate) fn kv_config(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let of = |field| request.header.ext.get(field).unwrap_or_default();
    let remark = format!("no value under namespace {}, key {}", of("namespace"), of("key"));
    turn.refuse(request, ResponseCode::QUERY_NOT_FOUND, remark);
    Ok(Step::Done)
}

/// GET_ALL_TOPIC_LIST_FROM_NAMESERVER (206).
pub(crate) fn topic_list(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let body = serde_json::json!({ "topicList": turn.services.routes.topic_names() }).to_string();
    turn.reply(request, response::ok().with_body(body));
    Ok(Step::Done)
}

/// DELETE_TOPIC_IN_NAMESRV (216): administration tools send it after they deleted the topic at the broker, which is all
/// that is needed here.
pub(crate) fn forget_topic(turn: &mut Turn<'_>, request: &Request<'_>) -> Handled {
    let header = DeleteTopicHeader::decode(&request.header.ext)?;
    if turn.services.store.topic(&header.topic).is_some() {
        let remark = format!("the topic {} exists: delete it at the broker", header.topic);
        turn.refuse(request, ResponseCode::SYSTEM_ERROR, remark);
    } else {
        turn.reply(request, response::ok());
    }
    Ok(Step::Done)
}

fn route_data(routes: &Routes, route: &Route) -> TopicRouteData {
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    TopicRouteData {
        order_topic_conf: None,
        queue_datas: vec![QueueData {
            broker_name: routes.broker_name().to_owned(),
            read_queue_nums: number(route.read_queues),
            write_queue_nums: number(route.write_queues),
            perm: number(route.permission),
            topic_sys_flag: number(route.system_flag),
        }],
        broker_datas: vec![broker_data(routes)],
    }
}

fn broker_data(routes: &Routes) -> BrokerData {
    BrokerData {
        cluster: routes.cluster().to_owned(),
        broker_name: routes.broker_name().to_owned(),
        broker_addrs: [(MASTER_ID, routes.broker_address().to_string())].into(),
        zone_name: None,
        enable_acting_master: false,
    }
}
