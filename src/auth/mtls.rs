//! The `mtls` authenticator: the name in a client certificate that the transport has verified.

use jiff::Timestamp;
use serde::Deserialize;
use x509_cert::{
    Certificate as X509,
    der::{self, Decode},
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::Identity;
use crate::{error::Error, names::Principal};

/// Prefixes the principals of this authenticator.
pub const AUTHENTICATOR: &str = "mtls";

/// What a verified client certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    uris: Vec<String>,
    dns_names: Vec<String>,
    not_after: Timestamp,
}

/// Which of a certificate's names is the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Subject {
    /// Its URI, such as a SPIFFE id.
    Uri,
    /// Its DNS name.
    Dns,
}

impl Certificate {
    /// Reads one that has been verified. One that cannot be read says nothing of anybody.
    pub fn read(der: &[u8]) -> Option<Self> {
        let read = Self::decode(der);
        if let Err(error) = &read {
            tracing::info!(%error, "a client certificate cannot be read");
        }
        read.ok()
    }

    fn decode(der: &[u8]) -> der::Result<Self> {
        let certificate = X509::from_der(der)?;
        let certificate = certificate.tbs_certificate();
        let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
        let names = certificate.get_extension::<SubjectAltName>()?;
        for name in names.map_or_else(Vec::new, |(_, names)| names.0) {
            match name {
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.to_string()),
                // Their case makes no difference.
                GeneralName::DnsName(name) => dns_names.push(name.as_str().to_ascii_lowercase()),
                _ => {}
            }
        }
        let not_after = certificate.validity().not_after.to_unix_duration().as_secs();
        // A year that cannot be told is later than any that will be asked for.
        let not_after =
            i64::try_from(not_after).ok().and_then(|at| Timestamp::from_second(at).ok());
        Ok(Self { uris, dns_names, not_after: not_after.unwrap_or(Timestamp::MAX) })
    }
}

impl TryFrom<String> for Subject {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "uri" => Ok(Self::Uri),
            "dns" => Ok(Self::Dns),
            _ => Err("must be \"uri\" or \"dns\""),
        }
    }
}

impl Subject {
    /// Whom a certificate names; nobody where it has no such name, or several, or one that stands for many.
    pub fn principal(self, certificate: &Certificate) -> Option<Principal> {
        let names = match self {
            Self::Uri => &certificate.uris,
            Self::Dns => &certificate.dns_names,
        };
        match &names[..] {
            [name] if self == Self::Uri || !name.contains('*') => {
                Principal::new(AUTHENTICATOR, name).ok()
            }
            _ => None,
        }
    }

    /// Whom a certificate speaks for at a time. It was good when the connection was made, which may be long ago.
    pub fn holder(self, certificate: &Certificate, now: Timestamp) -> Result<Identity, Error> {
        let principal = self.principal(certificate).ok_or(Error::Unauthenticated)?;
        if certificate.not_after <= now {
            tracing::info!(%principal, "refused an expired certificate");
            return Err(Error::Unauthenticated);
        }
        Ok(Identity { principal, groups: Vec::new(), expires: Some(certificate.not_after) })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(uris: &[&str], dns_names: &[&str]) -> Certificate {
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ASCII")));
        let dns_names = dns_names.iter().map(|n| SanType::DnsName((*n).try_into().expect("ASCII")));
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.chain(dns_names).collect();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let signed = params.self_signed(&KeyPair::generate().expect("a key")).expect("signed");
        Certificate::read(signed.der()).expect("readable")
    }

    fn named(subject: Subject, uris: &[&str], dns_names: &[&str]) -> Option<String> {
        let principal = subject.principal(&certificate(uris, dns_names));
        principal.map(|principal| principal.as_str().to_owned())
    }

    #[test]
    fn the_subject_is_the_one_name_of_its_kind() {
        let id = "spiffe://example.org/backend";
        assert_eq!(named(Subject::Uri, &[id], &[]), Some(format!("mtls:{id}")));
        assert_eq!(named(Subject::Uri, &[id], &["a.test", "b.test"]), Some(format!("mtls:{id}")));
        let dns = named(Subject::Dns, &[id, "urn:x"], &["Backend.TEST"]);
        assert_eq!(dns.as_deref(), Some("mtls:backend.test"));
    }

    #[test]
    fn none_several_and_those_for_many_name_nobody() {
        assert_eq!(named(Subject::Uri, &[], &["a.test"]), None);
        assert_eq!(named(Subject::Dns, &["urn:a"], &[]), None);
        assert_eq!(named(Subject::Uri, &["urn:a", "urn:b"], &[]), None);
        assert_eq!(named(Subject::Uri, &["urn:a", "urn:a"], &[]), None);
        assert_eq!(named(Subject::Dns, &[], &["a.test", "b.test"]), None);
        assert_eq!(named(Subject::Dns, &[], &["*.test"]), None);
        assert_eq!(named(Subject::Uri, &[&format!("urn:{}", "a".repeat(600))], &[]), None);
    }

    #[test]
    fn it_is_good_up_to_its_end() {
        let certificate = certificate(&["urn:a"], &[]);
        let at = |time: &str| {
            Subject::Uri.holder(&certificate, time.parse().expect("a time")).map(|i| i.expires)
        };
        let end = "2030-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(at("2029-12-31T23:59:59Z").expect("good"), Some(end));
        assert!(matches!(at("2030-01-01T00:00:00Z"), Err(Error::Unauthenticated)));
    }

    #[test]
    fn what_is_no_certificate_says_nothing() {
        assert_eq!(Certificate::read(b"\x30\x00"), None);
    }
}
