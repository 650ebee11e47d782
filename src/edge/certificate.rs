//! Client certificates: who their subject names (`surfaces.md` F2), and the one that a connection has shown.
//!
//! The subject is read strictly: what is odd about it is refused, since whoever reads a name otherwise than the one who signed it lets the
//! wrong person in. That the certificate chains to the CA is proved before, in the handshake.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use x509_parser::asn1_rs::Tag;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::AttributeTypeAndValue;

use crate::broker::{Broker, Principal};
use crate::types::name::quote;
use crate::types::{ClusterId, Result, TimeUs, UserName};

/// The subject of a client certificate that chains to the cluster's CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// `user-<name>`.
    User(Arc<str>),
    /// `node-<uuid>`.
    Node(Arc<str>),
}

/// What is read of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Whose it is.
    pub certificate: Certificate,
    /// It is good until then.
    pub not_after: TimeUs,
}

/// From when until when a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First moment.
    pub not_before: TimeUs,
    /// Last moment.
    pub not_after: TimeUs,
}

/// Reads a client certificate (DER) of a cluster.
///
/// # Errors
/// Half a sentence: which part of the subject is not as it must be. The handshake is refused then.
pub fn read(der: &[u8], cluster: &ClusterId) -> Result<Read, String> {
    let parsed = parse(der)?;
    let subject = parsed.subject();
    let unit = only("organizational unit", subject.iter_organizational_unit())?;
    if unit != cluster.as_str() {
        return Err(format!("its organizational unit is {}, and the cluster is {cluster}", quote(unit)));
    }
    let name = only("common name", subject.iter_common_name())?;
    let certificate = named(name).ok_or_else(|| format!("its common name is {}; it must be user-<name> or node-<uuid>", quote(name)))?;
    Ok(Read { certificate, not_after: validity_of(&parsed).not_after })
}

/// The cluster whose CA this certificate (DER) is: its organizational unit.
///
/// # Errors
/// Half a sentence, as above.
pub fn cluster(der: &[u8]) -> Result<ClusterId, String> {
    let parsed = parse(der)?;
    if !parsed.is_ca() {
        return Err("it is no certificate of an authority (basic constraints, CA:TRUE)".into());
    }
    let unit = only("organizational unit", parsed.subject().iter_organizational_unit())?;
    ClusterId::parse(unit).map_err(|error| format!("its organizational unit is no cluster: {}", error.message))
}

/// From when until when a certificate (DER) is good.
///
/// # Errors
/// Half a sentence, as above.
pub fn validity(der: &[u8]) -> Result<Validity, String> {
    parse(der).map(|parsed| validity_of(&parsed))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("bytes follow the certificate".into()),
        Err(_) => Err("it is no X.509 certificate".into()),
    }
}

fn validity_of(parsed: &X509Certificate<'_>) -> Validity {
    let us = |time: x509_parser::time::ASN1Time| TimeUs(time.timestamp().saturating_mul(1_000_000));
    Validity { not_before: us(parsed.validity().not_before), not_after: us(parsed.validity().not_after) }
}

/// The one value of an attribute, as text of one of the two encodings that leave no doubt.
fn only<'a, 'b: 'a>(what: &str, mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>) -> Result<&'b str, String> {
    let value = match (values.next(), values.next()) {
        (Some(value), None) => value,
        (None, _) => return Err(format!("its subject has no {what}")),
        (Some(_), Some(_)) => return Err(format!("its subject has more than one {what}")),
    };
    if !matches!(value.attr_value().tag(), Tag::Utf8String | Tag::PrintableString) {
        return Err(format!("its {what} is neither UTF-8 nor printable text"));
    }
    value.as_str().map_err(|_| format!("its {what} is not readable text"))
}

fn named(name: &str) -> Option<Certificate> {
    if let Some(user) = name.strip_prefix("user-") {
        return UserName::parse(user).ok().map(|user| Certificate::User(user.as_str().into()));
    }
    let node = name.strip_prefix("node-")?;
    // In its one usual form only.
    let id = uuid::Uuid::try_parse(node).ok()?;
    (id.hyphenated().to_string() == node).then(|| Certificate::Node(node.into()))
}

/// The certificate of a connection, as each of its requests carries it. Who it belongs to is looked up once and remembered.
#[derive(Clone)]
pub struct Shown(Arc<Inner>);

struct Inner {
    certificate: Certificate,
    not_after: Option<TimeUs>,
    known: Mutex<Option<Principal>>,
}

impl Shown {
    /// One that was proved by the handshake and is good until `not_after`.
    pub fn new(certificate: Certificate, not_after: Option<TimeUs>) -> Self {
        Self(Arc::new(Inner { certificate, not_after, known: Mutex::default() }))
    }

    /// Whom it stands for.
    ///
    /// # Errors
    /// `unauthenticated` when there is no such user, or it is disabled; `session_expired` after its time.
    pub async fn principal(&self, broker: &Broker) -> Result<Principal> {
        let Certificate::User(name) = &self.0.certificate else { return Ok(broker.node()) };
        let known = self.0.known.lock().clone();
        if let Some(who) = known
            && broker.still_good(&who).await.is_ok()
        {
            return Ok(who);
        }
        // Not known, or not good any more: then there may be another user of that name.
        let who = broker.certificate_until(name, self.0.not_after).await?;
        *self.0.known.lock() = Some(who.clone());
        Ok(who)
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.certificate.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::string::{BmpString, Ia5String, PrintableString};
    use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyPair};

    use super::*;

    fn certificate(subject: Vec<(DnType, DnValue)>, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        subject.into_iter().for_each(|(kind, value)| params.distinguished_name.push(kind, value));
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn of(name: impl Into<DnValue>, unit: impl Into<DnValue>) -> Result<Certificate, String> {
        let der = certificate(vec![(DnType::CommonName, name.into()), (DnType::OrganizationalUnitName, unit.into())], |_| {});
        read(&der, &ClusterId::parse("c1").unwrap()).map(|read| read.certificate)
    }

    #[test]
    fn users_and_nodes_of_the_cluster_are_read() {
        assert_eq!(of("user-alice", "c1").unwrap(), Certificate::User("alice".into()));
        assert_eq!(of("user-Alice.2_x-y", "c1").unwrap(), Certificate::User("Alice.2_x-y".into()));
        let printable = |text: &str| DnValue::PrintableString(PrintableString::try_from(text).unwrap());
        assert_eq!(of(printable("user-alice"), printable("c1")).unwrap(), Certificate::User("alice".into()));
        let node = "node-6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11";
        assert_eq!(of(node, "c1").unwrap(), Certificate::Node(node[5..].into()));
        let longest = format!("user-{}", "a".repeat(200));
        assert_eq!(of(&*longest, "c1").unwrap(), Certificate::User(longest[5..].into()));
    }

    #[test]
    fn every_other_common_name_is_refused() {
        let longer = format!("user-{}", "a".repeat(201));
        for name in [
            "alice",
            "user-",
            "user",
            "USER-alice",
            "User-alice",
            " user-alice",
            "user-alice ",
            "user-a/b",
            "user-al\u{0}ice",
            "user-ali\u{441}e",
            "user-..",
            "user-a,OU=c1",
            "control-service",
            "admin-x",
            &longer,
            "node-",
            "node-1",
            "node-6F2B1C1E-8A44-4C39-9D7E-0D8B5A0F3F11",
            "node-6f2b1c1e8a444c399d7e0d8b5a0f3f11",
            "node-{6f2b1c1e-8a44-4c39-9d7e-0d8b5a0f3f11}",
            "ｕser-alice",
            "",
        ] {
            assert!(of(name, "c1").is_err(), "{name:?}");
        }
    }

    #[test]
    fn another_unit_none_or_two_are_refused_and_so_are_two_names() {
        for unit in ["c2", "C1", "c1 ", "", "c\u{0}1", "ｃ1"] {
            assert!(of("user-alice", unit).unwrap_err().contains("organizational unit"), "{unit:?}");
        }
        // The library keeps one value of each kind; other kinds with the same number are two to whoever reads them.
        let unit = || DnType::CustomDnType(vec![2, 5, 4, 11]);
        let name = || DnType::CustomDnType(vec![2, 5, 4, 3]);
        let c1 = ClusterId::parse("c1").unwrap();
        let both = |subject: Vec<(DnType, &str)>| {
            let subject = subject.into_iter().map(|(kind, text)| (kind, DnValue::from(text))).collect();
            read(&certificate(subject, |_| {}), &c1).unwrap_err()
        };
        let (cn, ou) = (DnType::CommonName, DnType::OrganizationalUnitName);
        assert!(both(vec![(cn.clone(), "user-alice"), (ou.clone(), "c1"), (unit(), "c1")]).contains("more than one organizational unit"));
        assert!(both(vec![(cn.clone(), "user-alice"), (name(), "user-bob"), (ou.clone(), "c1")]).contains("more than one common name"));
        assert!(both(vec![(cn, "user-alice")]).contains("no organizational unit"));
        assert!(both(vec![(ou, "c1")]).contains("no common name"));
    }

    #[test]
    fn other_encodings_bytes_behind_and_no_certificate_at_all_are_refused() {
        assert!(of(DnValue::BmpString(BmpString::try_from("user-alice").unwrap()), "c1").unwrap_err().contains("neither"));
        assert!(of(DnValue::Ia5String(Ia5String::try_from("user-alice").unwrap()), "c1").unwrap_err().contains("neither"));
        assert!(of("user-alice", DnValue::BmpString(BmpString::try_from("c1").unwrap())).unwrap_err().contains("neither"));
        let c1 = ClusterId::parse("c1").unwrap();
        let mut der = certificate(vec![(DnType::CommonName, "user-a".into()), (DnType::OrganizationalUnitName, "c1".into())], |_| {});
        assert!(read(&der, &c1).is_ok());
        der.push(0);
        assert!(read(&der, &c1).unwrap_err().contains("bytes follow"));
        for end in [0, 1, 2, 40, der.len() - 2] {
            assert!(read(&der[..end], &c1).unwrap_err().contains("no X.509"), "{end}");
        }
    }

    #[test]
    fn a_certificate_with_any_byte_changed_is_read_or_refused() {
        let c1 = ClusterId::parse("c1").unwrap();
        let good = certificate(vec![(DnType::CommonName, "user-a".into()), (DnType::OrganizationalUnitName, "c1".into())], |_| {});
        for at in 0..good.len() {
            for change in [1, 0x20, 0x80, 0xff] {
                let mut der = good.clone();
                der[at] ^= change;
                let _ = (read(&der, &c1), cluster(&der), validity(&der)); // no panic
            }
        }
    }

    #[test]
    fn the_cluster_is_the_unit_of_an_authority_and_of_nobody_else() {
        let subject = || vec![(DnType::CommonName, "ca".into()), (DnType::OrganizationalUnitName, "prod-1".into())];
        let ca = certificate(subject(), |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
        assert_eq!(cluster(&ca).unwrap().as_str(), "prod-1");
        assert!(cluster(&certificate(subject(), |_| {})).unwrap_err().contains("no certificate of an authority"));
    }

    #[test]
    fn the_validity_is_read() {
        let der = certificate(vec![(DnType::CommonName, "x".into())], |params| {
            params.not_before = rcgen::date_time_ymd(2026, 1, 26);
            params.not_after = rcgen::date_time_ymd(2027, 1, 26);
        });
        let day = |text: &str| TimeUs::parse(text).unwrap();
        assert_eq!(validity(&der).unwrap(), Validity { not_before: day("2026-01-26T00:00:00Z"), not_after: day("2027-01-26T00:00:00Z") });
    }
}
