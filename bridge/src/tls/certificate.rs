//! What stands in a certificate. Judges no signature: that is rustls's.

use std::net::IpAddr;

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

/// The part of a certificate that we look at ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Whether it has extensions (RFC 5280, section 4.1): others cannot be verified.
    pub(super) is_v3: bool,
    pub(super) signer: Signer,
    /// Whether it may be used by a TLS client.
    pub(super) is_for_clients: bool,
    /// And by a TLS server.
    pub(super) is_for_servers: bool,
    /// What it is for, other than its common name (RFC 5280, section 4.2.1.6).
    pub(super) names: Vec<String>,
    pub(super) validity: Validity,
    /// The public key, as SubjectPublicKeyInfo (RFC 5280, section 4.1.2.7).
    pub(super) public_key: Vec<u8>,
    /// The subject as people write it.
    pub(super) subject: String,
}

/// Who has signed a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signer {
    /// Another.
    Other,
    /// Itself, and it may sign no others: a client's own.
    Itself,
    /// Itself, and it may sign others: an authority.
    Authority,
}

/// From when until when, seconds since 1970, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// How a time lies to a validity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    NotYetValid,
    Valid,
    Expired,
}

impl Validity {
    pub(super) fn at(self, now: i64) -> Age {
        match now {
            now if now < self.from => Age::NotYetValid,
            now if now > self.until => Age::Expired,
            _ => Age::Valid,
        }
    }
}

/// Now, as [`Validity`] counts.
pub(super) fn now() -> i64 {
    ASN1Time::now().timestamp()
}

/// A date for a message.
pub(super) fn date(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Reads a certificate; `None`: it is none.
pub(super) fn facts(der: &CertificateDer<'_>) -> Option<Facts> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    let usage = certificate.extended_key_usage().ok()?.map(|usage| usage.value);
    Some(Facts {
        is_v3: certificate.version() == X509Version::V3,
        signer: signer(&certificate),
        is_for_clients: usage.is_none_or(|usage| usage.any || usage.client_auth),
        is_for_servers: usage.is_none_or(|usage| usage.any || usage.server_auth),
        names: names(&certificate),
        validity: Validity {
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
        },
        public_key: certificate.public_key().raw.to_owned(),
        subject: certificate.subject().to_string(),
    })
}

/// Those of hosts; what others it may have are shown as they are read.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return vec![] };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => match <[u8; 4]>::try_from(*bytes) {
            Ok(bytes) => IpAddr::from(bytes).to_string(),
            Err(_) => match <[u8; 16]>::try_from(*bytes) {
                Ok(bytes) => IpAddr::from(bytes).to_string(),
                Err(_) => name.to_string(),
            },
        },
        name => name.to_string(),
    };
    names.value.general_names.iter().map(name).collect()
}

fn signer(certificate: &X509Certificate<'_>) -> Signer {
    match (is_self_signed(certificate), may_sign(certificate)) {
        (false, _) => Signer::Other,
        (true, false) => Signer::Itself,
        (true, true) => Signer::Authority,
    }
}

/// By its names, and by its key identifiers if it has them: after a change of keys an authority
/// signs itself with its old key, and that certificate is no anchor.
fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    let mut subject_key = None;
    let mut authority_key = None;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(key) => subject_key = Some(key.clone()),
            ParsedExtension::AuthorityKeyIdentifier(authority) => {
                authority_key.clone_from(&authority.key_identifier);
            }
            _ => {}
        }
    }
    let same_key = match (subject_key, authority_key) {
        (Some(subject), Some(authority)) => subject == authority,
        _ => true,
    };
    same_key && certificate.subject().as_raw() == certificate.issuer().as_raw()
}

/// As OpenSSL judges a self-signed certificate (RFC 5280, section 4.2.1.9 and 4.2.1.3): without
/// basic constraints version 1 still may, as it could not have them, and version 3 if its key usage
/// says so. What cannot be read, or stands there twice, allows nothing.
fn may_sign(certificate: &X509Certificate<'_>) -> bool {
    let constraints = certificate.get_extension_unique(&OID_X509_EXT_BASIC_CONSTRAINTS);
    let (Ok(constraints), Ok(usage)) = (constraints, certificate.key_usage()) else {
        return false;
    };
    let is_usage = usage.map(|usage| usage.value.key_cert_sign());
    match constraints.map(X509Extension::parsed_extension) {
        Some(ParsedExtension::BasicConstraints(found)) => found.ca && is_usage != Some(false),
        Some(_) => false,
        None => is_usage.unwrap_or(certificate.version() == X509Version::V1),
    }
}

/// The one common name of the certificate's subject. None if there are several: whoever signed it
/// may have checked another one than we would compare.
pub(crate) fn common_name(der: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    };

    fn certificate(names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params(names).self_signed(&key).unwrap().der().clone()
    }

    fn params(names: &[&str]) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (index, name) in names.iter().enumerate() {
            // rcgen keeps one value a type.
            let kind = if index == 0 { DnType::CommonName } else { DnType::OrganizationName };
            params.distinguished_name.push(kind, *name);
        }
        params
    }

    #[test]
    fn t4_the_name_is_the_subjects_common_name_and_nothing_else() {
        assert_eq!(common_name(&certificate(&["jane@example.com"])).unwrap(), "jane@example.com");
        assert_eq!(common_name(&certificate(&["Joe", "jane@example.com"])).unwrap(), "Joe");
        assert_eq!(common_name(&certificate(&[])), None);
        assert_eq!(common_name(&CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])), None);
    }

    /// T4: two names are none. The organization's type (2.5.4.10) is changed to that of a common
    /// name (2.5.4.3) in the subject, which is what a careless authority might sign.
    #[test]
    fn t4_two_common_names_are_none() {
        let mut der = certificate(&["Joe", "jane"]).to_vec();
        let organization = [0x06, 0x03, 0x55, 0x04, 0x0a];
        while let Some(at) = der.windows(5).position(|window| window == organization) {
            der[at + 4] = 0x03;
        }
        let der = CertificateDer::from(der);
        assert_eq!(facts(&der).unwrap().subject.matches("CN=").count(), 2);
        assert_eq!(common_name(&der), None);
    }

    #[test]
    fn t3_an_anchor_is_signed_by_itself() {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = params(&["root"]);
        let issuer = Issuer::from_params(&root, &root_key);
        let client = params(&["client"]).signed_by(&key, &issuer).unwrap();
        assert_eq!(facts(&certificate(&["root"])).unwrap().signer, Signer::Itself);
        assert_eq!(facts(client.der()).unwrap().signer, Signer::Other);
    }

    /// T3: neither constraints nor usage may forbid it, and one of them must allow it.
    #[test]
    fn t3_who_may_sign_is_said_by_constraints_and_usage() {
        let may_sign = |is_ca: IsCa, usages: &[KeyUsagePurpose]| {
            let mut params = params(&["jane"]);
            (params.is_ca, params.key_usages) = (is_ca, usages.to_vec());
            let key = KeyPair::generate().unwrap();
            facts(params.self_signed(&key).unwrap().der()).unwrap().signer == Signer::Authority
        };
        let sign = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let other = [KeyUsagePurpose::DigitalSignature];
        let ca = || IsCa::Ca(BasicConstraints::Unconstrained);
        assert!(may_sign(ca(), &[]));
        assert!(may_sign(ca(), &sign));
        assert!(!may_sign(ca(), &other));
        assert!(!may_sign(IsCa::ExplicitNoCa, &[]));
        assert!(!may_sign(IsCa::ExplicitNoCa, &sign));
        assert!(!may_sign(IsCa::NoCa, &[]));
        assert!(!may_sign(IsCa::NoCa, &other));
        assert!(may_sign(IsCa::NoCa, &sign));
    }

    #[test]
    fn t3_dates_are_inclusive() {
        let validity = Validity { from: 10, until: 20 };
        let ages = [9, 10, 20, 21].map(|now| validity.at(now));
        assert_eq!(ages, [Age::NotYetValid, Age::Valid, Age::Valid, Age::Expired]);
    }
}
