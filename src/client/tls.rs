//! TLS of the client: whom it believes, and which certificate it shows.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::endpoint::Io;
use super::{Endpoint, Error, Result};

/// Where systems keep the authorities they believe. `SSL_CERT_FILE` comes first.
const SYSTEM: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
    "/etc/ssl/ca-bundle.pem",                            // openSUSE
    "/etc/ssl/cert.pem",                                 // Alpine, macOS
    "/etc/pki/tls/cacert.pem",                           // OpenELEC
];

/// How a client speaks TLS to an `https` endpoint. By default it believes the authorities of the system and shows nothing.
#[derive(Clone, Default)]
pub struct Tls {
    authorities: Option<Vec<u8>>,
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tls {
    /// Believes these authorities (PEM) instead of the system's.
    pub fn believing(mut self, authorities: impl Into<Vec<u8>>) -> Self {
        self.authorities = Some(authorities.into());
        self
    }

    /// Shows this certificate (PEM, with those between it and its authority) and proves it by its key (PEM).
    pub fn showing(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.own = Some((certificate.into(), key.into()));
        self
    }

    pub(crate) fn config(&self) -> Result<ClientConfig> {
        let wrong = |what: &str, error: &dyn fmt::Display| Error::Usage(format!("The {what} cannot be used: {error}."));
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| wrong("TLS library", &error))?
            .with_root_certificates(self.roots()?);
        let Some((certificate, key)) = &self.own else { return Ok(builder.with_no_client_auth()) };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate).collect::<std::result::Result<_, _>>().map_err(|e| wrong("certificate", &e))?;
        if chain.is_empty() {
            return Err(wrong("certificate", &"there is none in PEM in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("certificate's key", &error))?;
        builder.with_client_auth_cert(chain, key).map_err(|error| wrong("certificate and its key", &error))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        if let Some(pem) = &self.authorities {
            for root in CertificateDer::pem_slice_iter(pem) {
                let root = root.map_err(|error| Error::Usage(format!("The authorities cannot be read: {error}.")))?;
                roots.add(root).map_err(|error| Error::Usage(format!("The authorities cannot be used: {error}.")))?;
            }
        } else {
            let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
            let found = named.into_iter().chain(SYSTEM.map(PathBuf::from)).find_map(|path| std::fs::read(path).ok()).unwrap_or_default();
            // Some of a system's list may be of a kind that is not known here.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&found).flatten());
        }
        if roots.is_empty() {
            return Err(Error::Usage("No certificate authority is known by which the broker could be recognised; name the file of one.".into()));
        }
        Ok(roots)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("Tls").field("own_authorities", &self.authorities.is_some()).field("shows_certificate", &self.own.is_some()).finish()
    }
}

/// Shakes hands over a connection to `endpoint`.
pub(crate) async fn wrap(config: Arc<ClientConfig>, endpoint: &Endpoint, io: Box<dyn Io>) -> Result<Box<dyn Io>> {
    let host = endpoint.host();
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::Usage(format!("{host:?} is no name that a certificate can have.")))?;
    let tls = TlsConnector::from(config).connect(name, io).await;
    tls.map(|tls| Box::new(tls) as Box<dyn Io>).map_err(|error| Error::unreachable(format!("No TLS with {endpoint}: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_hold_something_else_are_refused_in_a_sentence() {
        let (cert, key) = ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "x");
        for (tls, word) in [
            (Tls::default().believing("nothing"), "No certificate authority"),
            (Tls::default().believing(cert), "authorities cannot be used"),
            (Tls::default().believing("-----BEGIN CERTIFICATE-----\n"), "authorities cannot be read"),
        ] {
            let error = tls.config().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(!format!("{:?}", Tls::default().showing(cert, key)).contains("BEGIN"));
    }
}
