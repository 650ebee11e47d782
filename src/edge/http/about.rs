//! What the broker says about itself.

use axum::extract::State;
use serde_json::json;

use super::{Anyone, Broker, NoQuery, Reply, reply};

/// `GET /`
pub async fn root(_: NoQuery) -> reply::Result {
    Reply::ok(&["/v1"])
}

/// `GET /v1`: reduced for callers without a credential.
pub async fn server(State(face): Broker, Anyone(who): Anyone, _: NoQuery) -> reply::Result {
    let trusted = !who.is_anonymous();
    let tls = face.stats().tls();
    let mut about = json!({
        "api_version": "v1",
        "api_extensions": [],
        "auth": if trusted { "trusted" } else { "untrusted" },
        "auth_methods": if tls.is_some() { json!(["unix-socket", "bearer", "tls"]) } else { json!(["unix-socket", "bearer"]) },
    });
    if trusted {
        about["environment"] = json!({
            "server": "tidelog", "server_version": env!("CARGO_PKG_VERSION"), "log_epoch": face.broker().log_epoch(),
            "uptime_s": face.uptime_s().floor() as u64, "dev": face.settings().dev,
        });
        if let Some(tls) = tls {
            about["environment"]["tls"] = json!({ "certificate_expires_at": tls.not_after.to_string(), "reload_failed": tls.failed });
        }
        about["config"] = json!({});
    }
    Reply::ok(&about)
}

/// `GET /v1/version`: a bare object, as Flocker has it.
pub async fn version(_: NoQuery) -> reply::Result {
    Ok(Reply::Bare(json!({"tidelog": env!("CARGO_PKG_VERSION")}).to_string()))
}
