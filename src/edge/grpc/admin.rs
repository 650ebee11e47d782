//! Service `Admin`: decode, call the broker once, encode. Words and numbers are those of REST.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::call::Call;
use super::message;
use crate::broker::{ListQuery, NewStream, NewSubscription, OperationInfo, ProducerInfo, StreamInfo, SubscriptionInfo, TrimTo, fields};
use crate::types::filter::Fields;
use crate::types::name::quote;
use crate::types::request::Start;
use crate::types::{Code, Error, Filter, OperationId, ProducerId, Result, StreamName, SubscriptionName, TimeUs, limits};
use crate::wire::proto::{answer, request, v1};

/// The methods of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    CreateStream,
    GetStream,
    ListStreams,
    TrimStream,
    CloseStream,
    DeleteStream,
    CreateSubscription,
    GetSubscription,
    ListSubscriptions,
    DeleteSubscription,
    SeekSubscription,
    GetProducer,
    ListProducers,
    DeleteProducer,
    GetOperation,
    WaitOperation,
}

impl Method {
    /// By its name in the proto file.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "CreateStream" => Self::CreateStream,
            "GetStream" => Self::GetStream,
            "ListStreams" => Self::ListStreams,
            "TrimStream" => Self::TrimStream,
            "CloseStream" => Self::CloseStream,
            "DeleteStream" => Self::DeleteStream,
            "CreateSubscription" => Self::CreateSubscription,
            "GetSubscription" => Self::GetSubscription,
            "ListSubscriptions" => Self::ListSubscriptions,
            "DeleteSubscription" => Self::DeleteSubscription,
            "SeekSubscription" => Self::SeekSubscription,
            "GetProducer" => Self::GetProducer,
            "ListProducers" => Self::ListProducers,
            "DeleteProducer" => Self::DeleteProducer,
            "GetOperation" => Self::GetOperation,
            "WaitOperation" => Self::WaitOperation,
            _ => return None,
        })
    }

    /// Does it change nothing? Then a deadline that passes leaves nothing in doubt.
    pub fn only_looks(self) -> bool {
        match self {
            Self::GetStream | Self::ListStreams | Self::GetSubscription | Self::ListSubscriptions => true,
            Self::GetProducer | Self::ListProducers | Self::GetOperation | Self::WaitOperation => true,
            Self::CreateStream | Self::TrimStream | Self::CloseStream | Self::DeleteStream => false,
            Self::CreateSubscription | Self::DeleteSubscription | Self::SeekSubscription | Self::DeleteProducer => false,
        }
    }
}

/// Answers one call.
///
/// # Errors
/// Those of the broker's call, and of reading the request.
pub async fn answer(call: &Call, method: Method, bytes: &[u8]) -> Result<Bytes> {
    let (broker, who) = (call.broker(), call.who());
    Ok(match method {
        Method::CreateStream => {
            let m: v1::CreateStreamRequest = request::read("CreateStreamRequest", bytes)?;
            let new = NewStream { name: stream(&m.name)?, description: m.description, metadata: labels(m.metadata)?, event_max_bytes: m.event_max_bytes };
            message::of(&stream_message(broker.create_stream(who, new).await?))
        }
        Method::GetStream => {
            let m: v1::GetStreamRequest = request::read("GetStreamRequest", bytes)?;
            message::of(&stream_message(broker.stream(who, &stream(&m.name)?).await?))
        }
        Method::ListStreams => {
            let m: v1::ListStreamsRequest = request::read("ListStreamsRequest", bytes)?;
            let page = broker.streams(who, page_of(m.after, m.limit, &m.filter, fields::STREAMS)?).await?;
            message::of(&v1::ListStreamsResponse { streams: page.items.into_iter().map(stream_message).collect(), more: page.more })
        }
        Method::TrimStream => {
            let m: v1::TrimStreamRequest = request::read("TrimStreamRequest", bytes)?;
            let to = match m.before {
                Some(v1::trim_stream_request::Before::BeforeOffset(offset)) => TrimTo::Offset(offset),
                Some(v1::trim_stream_request::Before::BeforeTimeUs(us)) => TrimTo::Time(TimeUs(us)),
                None => return Err(Error::bad("before_offset", "Send exactly one of before_offset and before_time_us.")),
            };
            message::of(&stream_message(broker.trim_stream(who, &stream(&m.name)?, to).await?))
        }
        Method::CloseStream => {
            let m: v1::CloseStreamRequest = request::read("CloseStreamRequest", bytes)?;
            message::of(&stream_message(broker.close_stream(who, &stream(&m.name)?).await?))
        }
        Method::DeleteStream => {
            let m: v1::DeleteStreamRequest = request::read("DeleteStreamRequest", bytes)?;
            message::of(&operation_message(broker.delete_stream(who, &stream(&m.name)?).await?))
        }
        Method::CreateSubscription => {
            let m: v1::CreateSubscriptionRequest = request::read("CreateSubscriptionRequest", bytes)?;
            let start = m.start.map_or(Ok(Start::Earliest), |start| request::start("start", &start))?;
            let (ack_timeout_s, max_in_flight, expires_s) = (m.ack_timeout_s, m.max_in_flight, m.expires_s);
            let new = NewSubscription { name: subscription(&m.name)?, start, ack_timeout_s, max_in_flight, expires_s, filter: m.filter };
            message::of(&subscription_message(broker.create_subscription(who, &stream(&m.stream)?, new).await?))
        }
        Method::GetSubscription => {
            let m: v1::GetSubscriptionRequest = request::read("GetSubscriptionRequest", bytes)?;
            message::of(&subscription_message(broker.subscription(who, &stream(&m.stream)?, &subscription(&m.name)?).await?))
        }
        Method::ListSubscriptions => {
            let m: v1::ListSubscriptionsRequest = request::read("ListSubscriptionsRequest", bytes)?;
            let page = broker.subscriptions(who, &stream(&m.stream)?, page_of(m.after, m.limit, &m.filter, fields::SUBSCRIPTIONS)?).await?;
            message::of(&v1::ListSubscriptionsResponse { subscriptions: page.items.into_iter().map(subscription_message).collect(), more: page.more })
        }
        Method::DeleteSubscription => {
            let m: v1::DeleteSubscriptionRequest = request::read("DeleteSubscriptionRequest", bytes)?;
            broker.delete_subscription(who, &stream(&m.stream)?, &subscription(&m.name)?).await?;
            message::of(&v1::DeleteSubscriptionResponse {})
        }
        Method::SeekSubscription => {
            let m: v1::SeekSubscriptionRequest = request::read("SeekSubscriptionRequest", bytes)?;
            let to = request::start("to", &m.to.unwrap_or_default())?;
            message::of(&subscription_message(broker.seek(who, &stream(&m.stream)?, &subscription(&m.name)?, to).await?))
        }
        Method::GetProducer => {
            let m: v1::GetProducerRequest = request::read("GetProducerRequest", bytes)?;
            message::of(&producer_message(broker.producer(who, of_stream(m.stream)?.as_ref(), &producer(&m.id)?).await?))
        }
        Method::ListProducers => {
            let m: v1::ListProducersRequest = request::read("ListProducersRequest", bytes)?;
            let page = broker.producers(who, of_stream(m.stream)?.as_ref(), page(m.after, m.limit)?).await?;
            message::of(&v1::ListProducersResponse { producers: page.items.into_iter().map(producer_message).collect(), more: page.more })
        }
        Method::DeleteProducer => {
            let m: v1::DeleteProducerRequest = request::read("DeleteProducerRequest", bytes)?;
            broker.delete_producer(who, of_stream(m.stream)?.as_ref(), &producer(&m.id)?).await?;
            message::of(&v1::DeleteProducerResponse {})
        }
        Method::GetOperation => {
            let m: v1::GetOperationRequest = request::read("GetOperationRequest", bytes)?;
            message::of(&operation_message(broker.operation(who, operation(&m.id)?).await?))
        }
        Method::WaitOperation => {
            let m: v1::WaitOperationRequest = request::read("WaitOperationRequest", bytes)?;
            let most = limits::OPERATION_WAIT;
            let timeout = m.timeout_s.map_or(most, |s| Duration::from_secs(s.into()).min(most));
            message::of(&operation_message(broker.wait_operation(who, operation(&m.id)?, timeout).await?))
        }
    })
}

pub(super) fn stream(name: &str) -> Result<StreamName> {
    StreamName::parse(name)
}

fn of_stream(name: Option<String>) -> Result<Option<StreamName>> {
    name.map(|name| stream(&name)).transpose()
}

fn subscription(name: &str) -> Result<SubscriptionName> {
    SubscriptionName::parse(name)
}

fn producer(id: &str) -> Result<ProducerId> {
    ProducerId::parse(id)
}

fn operation(id: &str) -> Result<OperationId> {
    let missing = || Error::new(Code::NotFound, format!("There is no operation {}.", quote(id)));
    uuid::Uuid::try_parse(id).map(OperationId).map_err(|_| missing())
}

fn labels(list: Vec<v1::Label>) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for v1::Label { name, value } in list {
        if map.insert(name.clone(), value).is_some() {
            return Err(Error::bad("metadata", format!("metadata names {} twice; give it once.", quote(&name))));
        }
    }
    Ok(map)
}

/// Every page has a limit: an answer is one message.
pub(super) fn page(after: String, limit: u32) -> Result<ListQuery> {
    let limit = match limit as usize {
        0 => limits::LIST_MAX,
        n if n <= limits::LIST_MAX => n,
        n => return Err(Error::bad("limit", format!("limit is {n}; give 1 to {}, or 0 for the most.", limits::LIST_MAX))),
    };
    Ok(ListQuery { after: Some(after).filter(|name| !name.is_empty()), limit: Some(limit), filter: None })
}

/// The same of a collection that can be filtered by these fields; an empty filter is none.
pub(super) fn page_of(after: String, limit: u32, filter: &str, fields: Fields) -> Result<ListQuery> {
    Ok(ListQuery { filter: Filter::given(Some(filter), fields)?, ..page(after, limit)? })
}

fn stream_message(info: StreamInfo) -> v1::Stream {
    let (status, status_code) = info.status.told();
    v1::Stream {
        name: info.name.to_string(),
        description: info.description,
        metadata: info.metadata.into_iter().map(|(name, value)| v1::Label { name, value }).collect(),
        event_max_bytes: info.event_max_bytes,
        durability: "fsync".into(),
        closed: info.closed,
        id: info.id.0,
        uuid: info.uuid,
        owner: info.owner,
        created_us: info.created.0,
        status: status.into(),
        status_code,
        log_epoch: info.log_epoch,
        first_offset: info.first_offset,
        next_offset: info.next_offset,
        bytes: info.bytes,
        last_event_us: info.last_event_at.map(|t| t.0),
    }
}

fn subscription_message(info: SubscriptionInfo) -> v1::Subscription {
    let (status, status_code) = info.status();
    v1::Subscription {
        name: info.name.to_string(),
        stream: info.stream.to_string(),
        ack_timeout_s: info.ack_timeout_s,
        max_in_flight: info.max_in_flight,
        expires_s: info.expires_s,
        id: info.id.0,
        created_us: info.created.0,
        next: info.next,
        epoch: info.epoch,
        lag: Some(answer::lag(&info.lag)),
        status: status.into(),
        status_code,
        filter: info.filter,
    }
}

fn producer_message(info: ProducerInfo) -> v1::Producer {
    v1::Producer {
        id: info.producer.to_string(),
        stream: info.stream.map(|name| name.to_string()),
        epoch: info.epoch,
        last_seq: info.last_seq,
        last_used_us: info.last_used.0,
    }
}

fn operation_message(info: OperationInfo) -> v1::Operation {
    v1::Operation {
        id: info.id.to_string(),
        status: info.status().into(),
        description: info.description,
        command: info.command,
        created_us: info.created.0,
        updated_us: info.updated.0,
        status_code: info.status_code,
        stream: info.stream,
        err: info.err,
        err_code: info.err_code,
        requestor: info.requestor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_limit_and_none_is_over_the_most() {
        assert_eq!(page(String::new(), 0).unwrap(), ListQuery { after: None, limit: Some(limits::LIST_MAX), filter: None });
        assert_eq!(page("a".into(), 1000).unwrap(), ListQuery { after: Some("a".into()), limit: Some(1000), filter: None });
        assert_eq!(page(String::new(), 1001).unwrap_err().code, Code::BadParameter);
    }

    #[test]
    fn a_label_given_twice_is_refused() {
        let label = |name: &str| v1::Label { name: name.into(), value: "v".into() };
        assert_eq!(labels(vec![label("a"), label("b")]).unwrap().len(), 2);
        assert_eq!(labels(vec![label("a"), label("a")]).unwrap_err().details["field"], "metadata");
    }
}
