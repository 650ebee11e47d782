//! A certificate authority of a cluster's own (`tidelog ca`): its certificate, and those it signs. Text in, text out; whoever calls keeps it.
//!
//! Everything carries the id of the cluster as its organizational unit, which is what the broker asks of its callers (`surfaces.md` F2).

use jiff::Span;
use jiff::civil::Date;
use rcgen::string::PrintableString;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use uuid::Uuid;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;
use x509_parser::x509::X509Name;

use crate::edge::certificate;
use crate::types::name::quote;
use crate::types::{ClusterId, UserName};

/// How long an authority is good. Replacing it means new certificates for everybody.
const AUTHORITY_YEARS: i32 = 10;
/// How long what it signs is good: more than 825 days is refused by some clients.
const SIGNED_DAYS: i32 = 730;

/// A certificate and its key, in PEM.
pub struct Pair {
    /// For everybody to see.
    pub certificate: String,
    /// For its owner only.
    pub key: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum For {
    /// A broker that is reached by these names and addresses.
    Server(Vec<String>),
    /// A user of the API.
    User(UserName),
    /// A node of the cluster.
    Node(Uuid),
}

/// An authority that can sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cluster: ClusterId,
    /// As it stands in its certificate.
    subject: Vec<u8>,
    last_day: Date,
}

/// The day it is, in UTC.
pub fn today() -> Date {
    jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC).date()
}

impl Authority {
    /// A new one of this cluster, with the pair to keep it by.
    ///
    /// # Errors
    /// A sentence.
    pub fn new(cluster: &ClusterId, today: Date) -> Result<(Self, Pair), String> {
        let mut params = params("tidelog-ca", cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        good(&mut params, today, later(today, Span::new().years(AUTHORITY_YEARS))?)?;
        let key = KeyPair::generate().map_err(failed)?;
        let pair = Pair { certificate: params.self_signed(&key).map_err(failed)?.pem(), key: key.serialize_pem() };
        Ok((Self::read(&pair.certificate, &pair.key)?, pair))
    }

    /// One that was made before.
    ///
    /// # Errors
    /// Half a sentence: what about it is not as it must be.
    pub fn read(certificate: &str, key: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|error| format!("the certificate is no PEM ({error})"))?;
        let cluster = certificate::cluster(&der)?;
        let key = KeyPair::from_pem(key).map_err(|error| format!("the key cannot be used ({error})"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|_| "the certificate is no X.509 certificate")?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err("the key is not that of the certificate".into());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = names_of(parsed.subject())?;
        let id = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        params.key_identifier_method = id.map_or(KeyIdMethod::Sha256, KeyIdMethod::PreSpecified);
        let ends = jiff::Timestamp::from_second(parsed.validity().not_after.timestamp()).map_err(|_| "the certificate ends at no day there is")?;
        let last_day = ends.to_zoned_datetime(jiff::tz::TimeZone::UTC).date();
        let subject = parsed.subject().as_raw().to_vec();
        Ok(Self { issuer: Issuer::new(params, key), cluster, subject, last_day })
    }

    /// Whose authority it is.
    pub fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Signs a new certificate.
    ///
    /// # Errors
    /// A sentence.
    pub fn sign(&self, whom: &For, today: Date) -> Result<Pair, String> {
        if today >= self.last_day {
            return Err(format!("This authority is good until {} only; make a new one with `tidelog ca init`.", self.last_day));
        }
        let (name, usage) = match whom {
            For::Server(_) => ("tidelog-server".to_owned(), ExtendedKeyUsagePurpose::ServerAuth),
            For::User(name) => (format!("user-{name}"), ExtendedKeyUsagePurpose::ClientAuth),
            For::Node(id) => (format!("node-{}", id.hyphenated()), ExtendedKeyUsagePurpose::ClientAuth),
        };
        let mut params = params(&name, &self.cluster);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        if let For::Server(hosts) = whom {
            params.subject_alt_names = hosts.iter().map(|host| alternative(host)).collect::<Result<_, _>>()?;
        }
        good(&mut params, today, later(today, Span::new().days(SIGNED_DAYS))?.min(self.last_day))?;
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        // An authority of somebody else's tool may write its name in a way that is not repeated to the letter here; nobody would find the chain.
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.der()).map_err(|_| "What was signed cannot be read.")?;
        if parsed.issuer().as_raw() != self.subject {
            return Err("This authority was made by another tool, which must sign for it.".into());
        }
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

/// Is this a name or an address that a server can have?
pub fn is_host(host: &str) -> bool {
    ServerName::try_from(host.strip_prefix("*.").unwrap_or(host)).is_ok()
}

fn alternative(host: &str) -> Result<SanType, String> {
    let refuse = || format!("{} is no name or address of a server.", quote(host));
    match host.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) if is_host(host) => Ok(SanType::DnsName(host.try_into().map_err(|_| refuse())?)),
        Err(_) => Err(refuse()),
    }
}

fn params(name: &str, cluster: &ClusterId) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Tidelog");
    params.distinguished_name.push(DnType::OrganizationalUnitName, cluster.as_str());
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// From the day before, since clocks differ.
fn good(params: &mut CertificateParams, today: Date, until: Date) -> Result<(), String> {
    let midnight = |day: Date| rcgen::date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs());
    params.not_before = midnight(today.yesterday().map_err(|error| format!("The clock of this machine is wrong: {error}."))?);
    params.not_after = midnight(until);
    Ok(())
}

fn later(day: Date, span: Span) -> Result<Date, String> {
    day.checked_add(span).map_err(|error| format!("The clock of this machine is wrong: {error}."))
}

/// A name, so that it can be written again.
fn names_of(name: &X509Name<'_>) -> Result<DistinguishedName, String> {
    let mut names = DistinguishedName::new();
    for attribute in name.iter_attributes() {
        let unusual = || "its name has a part that is written in no usual way".to_owned();
        let numbers: Vec<u64> = attribute.attr_type().iter().ok_or_else(unusual)?.collect();
        let text = attribute.as_str().map_err(|_| unusual())?;
        let value = match attribute.attr_value().tag() {
            Tag::PrintableString => DnValue::PrintableString(PrintableString::try_from(text).map_err(|_| unusual())?),
            Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
            _ => return Err(unusual()),
        };
        names.push(DnType::CustomDnType(numbers), value);
    }
    Ok(names)
}

fn failed(error: rcgen::Error) -> String {
    format!("The certificate could not be made: {error}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::certificate::{Certificate, read, validity};
    use crate::types::TimeUs;

    fn day(text: &str) -> Date {
        text.parse().unwrap()
    }

    fn der(pair: &Pair) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
    }

    #[test]
    fn what_an_authority_signs_is_read_as_it_was_meant() {
        let cluster = ClusterId::parse("prod-1").unwrap();
        let (authority, kept) = Authority::new(&cluster, day("2026-06-01")).unwrap();
        assert_eq!(certificate::cluster(&der(&kept)).unwrap(), cluster);
        let again = Authority::read(&kept.certificate, &kept.key).unwrap();
        for authority in [&authority, &again] {
            let user = authority.sign(&For::User(UserName::parse("alice").unwrap()), day("2026-06-01")).unwrap();
            let seen = read(&der(&user), &cluster).unwrap();
            assert_eq!(seen.certificate, Certificate::User("alice".into()));
            assert_eq!(seen.not_after, TimeUs::parse("2028-05-31T00:00:00Z").unwrap());
            let id = Uuid::now_v7();
            let node = authority.sign(&For::Node(id), day("2026-06-01")).unwrap();
            assert_eq!(read(&der(&node), &cluster).unwrap().certificate, Certificate::Node(id.to_string().into()));
            let server = authority.sign(&For::Server(vec!["localhost".into(), "::1".into(), "*.example.com".into()]), day("2026-06-01")).unwrap();
            assert!(read(&der(&server), &cluster).is_err(), "a server is nobody's credential");
        }
    }

    #[test]
    fn nothing_is_good_for_longer_than_its_authority() {
        let cluster = ClusterId::parse("c").unwrap();
        let (authority, kept) = Authority::new(&cluster, day("2026-06-01")).unwrap();
        let whom = For::User(UserName::parse("alice").unwrap());
        let end = validity(&der(&kept)).unwrap().not_after;
        assert_eq!(end, TimeUs::parse("2036-06-01T00:00:00Z").unwrap());
        assert_eq!(validity(&der(&authority.sign(&whom, day("2036-01-01")).unwrap())).unwrap().not_after, end);
        assert!(authority.sign(&whom, day("2036-06-01")).err().unwrap().contains("until 2036-06-01"));
    }

    #[test]
    fn names_that_no_server_has_and_keys_of_others_are_refused() {
        let cluster = ClusterId::parse("c").unwrap();
        let (authority, kept) = Authority::new(&cluster, day("2026-06-01")).unwrap();
        let (_, other) = Authority::new(&cluster, day("2026-06-01")).unwrap();
        for host in ["", "a b", "-", "a/b", "*.*", "https://x", "broker:4080"] {
            assert!(!is_host(host), "{host:?}");
            assert!(authority.sign(&For::Server(vec![host.into()]), day("2026-06-01")).is_err(), "{host:?}");
        }
        assert!(Authority::read(&kept.certificate, &other.key).err().unwrap().contains("not that of the certificate"));
        let user = authority.sign(&For::User(UserName::parse("a").unwrap()), day("2026-06-01")).unwrap();
        assert!(Authority::read(&user.certificate, &user.key).err().unwrap().contains("no certificate of an authority"));
        assert!(Authority::read("x", &kept.key).is_err() && Authority::read(&kept.certificate, "x").is_err());
    }
}
