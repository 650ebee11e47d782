//! Services that are not ours, as everybody knows them: health, and reflection in both of its versions.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::body::Bounded;
use super::call::Call;
use super::health::Truth;
use crate::edge::Face;
use crate::types::{Code, Error};
use crate::wire::proto::DESCRIPTORS;

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

type Service = BoxCloneSyncService<Request, http::Response<tonic::body::Body>, Infallible>;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Others {
    health: Service,
    reflection: Service,
    reflection_alpha: Service,
}

/// Is this one of them?
pub fn are(service: &str) -> bool {
    [HEALTH, REFLECTION, REFLECTION_ALPHA].contains(&service)
}

/// What reflection tells: our services and health, not how rows are stored.
fn reflected() -> Builder<'static> {
    Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

impl Others {
    /// Health tells the truth about this broker.
    pub fn new(face: Face) -> Self {
        let ours = "the descriptors were compiled with this program";
        Self {
            health: Service::new(HealthServer::new(Truth(face))),
            reflection: Service::new(reflected().build_v1().expect(ours)),
            reflection_alpha: Service::new(reflected().build_v1alpha().expect(ours)),
        }
    }

    /// Answers a call. None outlives the broker's stop: health says so by itself, reflection knows nothing of it.
    pub async fn answer(&self, call: &Call, request: Request) -> Response {
        let path = request.uri().path();
        let health = path.starts_with("/grpc.health.");
        let service = match path {
            _ if health => &self.health,
            _ if path.starts_with("/grpc.reflection.v1.") => &self.reflection,
            _ => &self.reflection_alpha,
        };
        let response = match service.clone().oneshot(request).await {
            Ok(response) => response.map(Body::new),
            Err(never) => match never {},
        };
        if health {
            return Bounded::by(response, call.deadline());
        }
        let why = call.status(Error::new(Code::Unavailable, "The broker is stopping; call again in a second.").detail("retry_after_s", 1));
        Bounded::by_or_draining(response, call.deadline(), call.face().draining(), why)
    }
}
