//! `grpc.health.v1`: the truth of `/readyz`, for balancers and supervisors that speak gRPC. Open to all, as that is.

use std::pin::Pin;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::{ACCESS, ADMIN, BROKER};
use crate::edge::Face;

/// How often a watched truth is looked at; the broker's stop is told at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// See the module.
pub struct Truth(pub Face);

impl Truth {
    fn now(&self) -> ServingStatus {
        let ready = self.0.broker().health().ready && !self.0.draining().is_cancelled();
        if ready { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn known(service: &str) -> bool {
    ["", BROKER, ADMIN, ACCESS].contains(&service)
}

fn told(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Truth {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if !known(&request.get_ref().service) {
            return Err(Status::not_found(
                "There is no such service here; ask about tidelog.v1.Broker, tidelog.v1.Admin, tidelog.v1.Access, or all with an empty name.",
            ));
        }
        Ok(Response::new(told(self.now())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (truth, known) = (Self(self.0.clone()), known(&request.get_ref().service));
        let changes = unfold((truth, None), move |(truth, last)| async move {
            loop {
                // An unknown service may come to be: so says the protocol. Ours do not.
                let now = if known { truth.now() } else { ServingStatus::ServiceUnknown };
                if last != Some(now) {
                    return Some((Ok(told(now)), (truth, Some(now))));
                }
                if truth.0.draining().is_cancelled() {
                    return None;
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = truth.0.draining().cancelled() => {}
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
