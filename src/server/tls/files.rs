//! From the files of a certificate, a key and authorities to what handshakes need. All of it fits, or none of it is used.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::subjects::Subjects;
use crate::edge::certificate;
use crate::server::config::Tls;
use crate::types::{ClusterId, TimeUs, limits};

/// What the files say.
pub struct Loaded {
    /// For the port of everybody.
    pub main: Arc<ServerConfig>,
    /// For the port of those with a certificate.
    pub mutual: Option<Arc<ServerConfig>>,
    /// Whose certificates callers may show.
    pub cluster: Option<Arc<ClusterId>>,
    /// When our certificate ends.
    pub not_after: TimeUs,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence: which file, what is wrong with it, what to do.
    pub fn read(tls: &Tls, now: TimeUs) -> Result<Self, String> {
        let chain = certificates(&tls.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&bytes(&tls.key)?)
            .map_err(|error| format!("The key file {} holds no private key in PEM ({error}).", tls.key.display()))?;
        let leaf = chain.first().ok_or_else(|| no_certificate(&tls.cert))?;
        let not_after = good_now(&tls.cert, leaf, now)?;
        let (anybody, certified, cluster) = match &tls.clients {
            None => (WebPkiClientVerifier::no_client_auth(), None, None),
            Some(clients) => {
                let (anybody, certified, cluster) = verifiers(&clients.ca, now)?;
                (anybody, Some(certified), Some(cluster))
            }
        };
        let config = |verifier: Arc<dyn ClientCertVerifier>| config(tls, verifier, chain.clone(), key.clone_key()).map(Arc::new);
        Ok(Self { main: config(anybody)?, mutual: certified.map(config).transpose()?, cluster, not_after })
    }
}

fn config(tls: &Tls, verifier: Arc<dyn ClientCertVerifier>, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<ServerConfig, String> {
    let shows = verifier.offer_client_auth();
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS cannot be set up: {error}."))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| format!("The certificate {} and the key {} cannot be used together: {error}.", tls.cert.display(), tls.key.display()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if shows {
        // A session that is taken up again shows no certificate: who was known by one would stay so after it has expired.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(config)
}

/// The authorities of clients: a verifier for those who may show a certificate, one for those who must, and the cluster they are of.
type Verifiers = (Arc<dyn ClientCertVerifier>, Arc<dyn ClientCertVerifier>, Arc<ClusterId>);

fn verifiers(path: &Path, now: TimeUs) -> Result<Verifiers, String> {
    let wrong = |why: &str| format!("The file {} cannot be the authority of client certificates: {why}. `tidelog ca init` makes one.", path.display());
    let (mut roots, mut cluster): (_, Option<ClusterId>) = (RootCertStore::empty(), None);
    for root in certificates(path)? {
        good_now(path, &root, now)?;
        let of = certificate::cluster(&root).map_err(|why| wrong(&why))?;
        match &cluster {
            // Two of them are there while one takes over from the other.
            Some(cluster) if *cluster != of => return Err(wrong(&format!("it holds those of two clusters, {cluster} and {of}"))),
            _ => cluster = Some(of),
        }
        roots.add(root).map_err(|error| wrong(&error.to_string()))?;
    }
    let cluster = Arc::new(cluster.ok_or_else(|| no_certificate(path))?);
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let built = |builder: rustls::server::ClientCertVerifierBuilder| {
        let chain = builder.build().map_err(|error| wrong(&error.to_string()))?;
        Ok::<Arc<dyn ClientCertVerifier>, String>(Arc::new(Subjects { chain, cluster: cluster.clone() }))
    };
    Ok((built(builder.clone().allow_unauthenticated())?, built(builder)?, cluster))
}

/// All certificates of a file.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = bytes(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(no_certificate(path)),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("The certificate file {} is no PEM ({error}).", path.display())),
    }
}

fn no_certificate(path: &Path) -> String {
    format!("The file {} holds no certificate in PEM.", path.display())
}

/// When the certificate ends, if it has begun and not ended.
fn good_now(path: &Path, der: &[u8], now: TimeUs) -> Result<TimeUs, String> {
    let validity = certificate::validity(der).map_err(|why| format!("The certificate in {} cannot be read: {why}.", path.display()))?;
    if now > validity.not_after {
        return Err(format!("The certificate in {} has expired on {}; put a new one there.", path.display(), validity.not_after));
    }
    if now < validity.not_before {
        return Err(format!("The certificate in {} is good from {} on only; is the clock of this machine right?", path.display(), validity.not_before));
    }
    Ok(validity.not_after)
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("The file {} cannot be read: {error}.", path.display());
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > limits::TLS_FILE_BYTES as u64 {
        return Err(format!("The file {} has {length} bytes; certificates and keys have {} at most.", path.display(), limits::TLS_FILE_BYTES));
    }
    std::fs::read(path).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

    use super::*;
    use crate::server::config::TlsClients;

    type Ca = CertifiedIssuer<'static, KeyPair>;

    fn ca(unit: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn leaf(ca: &Ca, years: (i32, i32)) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(years.0, 1, 1), rcgen::date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
    }

    /// Writes the three files and reads them.
    fn read(cert: &str, key: &str, ca: Option<&str>) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| -> PathBuf {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let clients = ca.map(|text| TlsClients { ca: put("ca.crt", text), listen: None });
        Loaded::read(&Tls { cert: put("s.crt", cert), key: put("s.key", key), clients }, TimeUs::parse("2026-06-01T00:00:00Z").unwrap())
    }

    fn refusal(cert: &str, key: &str, ca: Option<&str>) -> String {
        read(cert, key, ca).err().expect("it is refused")
    }

    #[test]
    fn a_certificate_its_key_and_an_authority_make_both_ports() {
        let ca = ca("c1");
        let (cert, key) = leaf(&ca, (2026, 2027));
        let plain = read(&cert, &key, None).unwrap();
        assert!(plain.mutual.is_none() && plain.cluster.is_none());
        assert_eq!(plain.not_after, TimeUs::parse("2027-01-01T00:00:00Z").unwrap());
        let both = read(&cert, &key, Some(&ca.pem())).unwrap();
        assert_eq!(both.cluster.unwrap().as_str(), "c1");
        assert!(both.mutual.is_some());
        assert_eq!(both.main.send_tls13_tickets, 0, "nobody comes back without the certificate");
        assert_eq!(both.main.max_early_data_size, 0, "no request comes before the handshake");
    }

    #[test]
    fn what_does_not_fit_is_refused_in_a_sentence_that_names_the_file() {
        let ca = ca("c1");
        let (cert, key) = leaf(&ca, (2026, 2027));
        let (other_cert, other_key) = leaf(&ca, (2026, 2027));
        assert!(refusal(&cert, &other_key, None).contains("cannot be used together"));
        assert!(refusal(&other_cert, &key, None).contains("s.crt"));
        assert!(refusal("", &key, None).contains("holds no certificate"));
        assert!(refusal(&key, &key, None).contains("holds no certificate"));
        assert!(refusal(&cert, &cert, None).contains("holds no private key"));
        assert!(refusal(&cert[..cert.len() / 2], &key, None).contains("is no PEM"));
        let (old, old_key) = leaf(&ca, (2024, 2025));
        assert!(refusal(&old, &old_key, None).contains("has expired on 2025-01-01"));
        let (early, early_key) = leaf(&ca, (2030, 2031));
        assert!(refusal(&early, &early_key, None).contains("is good from 2030-01-01"));
    }

    #[test]
    fn a_file_has_a_mebibyte_and_not_one_byte_more() {
        let ca = ca("c1");
        let (cert, key) = leaf(&ca, (2026, 2027));
        let padded = |bytes: usize| format!("{}{cert}", "#".repeat(bytes - cert.len() - 1) + "\n");
        for fits in [limits::TLS_FILE_BYTES - 1, limits::TLS_FILE_BYTES] {
            assert!(read(&padded(fits), &key, None).is_ok(), "{fits}");
        }
        assert!(refusal(&padded(limits::TLS_FILE_BYTES + 1), &key, None).contains("1048577 bytes"));
    }

    #[test]
    fn authorities_are_those_of_one_cluster() {
        let (one, next, other) = (ca("c1"), ca("c1"), ca("c2"));
        let (cert, key) = leaf(&one, (2026, 2027));
        assert!(read(&cert, &key, Some(&(one.pem() + &next.pem()))).is_ok(), "one takes over from the other");
        assert!(refusal(&cert, &key, Some(&(one.pem() + &other.pem()))).contains("two clusters, c1 and c2"));
        assert!(refusal(&cert, &key, Some(&cert)).contains("no certificate of an authority"));
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let public = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(refusal(&cert, &key, Some(&public)).contains("no organizational unit"));
        assert!(refusal(&cert, &key, Some("")).contains("holds no certificate"));
    }
}
