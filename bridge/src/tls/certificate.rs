//! The contents of a certificate. Knows X.509; must not check signatures, which rustls does.

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
    /// Whether it is of version 3, which has extensions (RFC 5280, section 4.1): other versions cannot be verified.
    pub(super) is_v3: bool,
    pub(super) signer: Signer,
    /// Whether it may be used by a TLS client.
    pub(super) is_for_clients: bool,
    /// Whether it may be used by a TLS server.
    pub(super) is_for_servers: bool,
    /// The subject alternative names (RFC 5280, section 4.2.1.6): what it is for, besides its common name.
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
    /// Another certificate's owner.
    Other,
    /// Its own owner, and it may sign no other certificates: a client's self-signed certificate.
    Itself,
    /// Its own owner, and it may sign other certificates: an authority.
    Authority,
}

/// The first and the last second of a certificate's validity, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: i64,
    pub(super) until: i64,
}

/// Whether a point in time is before, within or after a certificate's validity.
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

/// The present time, as [`Validity`] counts it.
pub(super) fn now() -> i64 {
    ASN1Time::now().timestamp()
}

/// A date for a message.
pub(super) fn date(seconds: i64) -> String {
    ASN1Time::from_timestamp(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Reads a certificate. `None`: the bytes are no certificate.
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

/// The subject alternative names: those of hosts as people write them, other kinds as the parser shows them.
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

/// Whether its subject is its issuer, and its key the issuer's, if it has identifiers of both keys. After a change
/// of keys an authority signs its new key with its old one: that certificate has equal names, but is no anchor.
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

/// Whether a self-signed certificate may sign others, as OpenSSL judges it (RFC 5280, section 4.2.1.9 and
/// 4.2.1.3). Without basic constraints, a certificate of version 1 may, as it cannot have them, and any other if
/// its key usage says so. An extension that cannot be read, or stands there twice, allows nothing.
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

/// The common name of the certificate's subject. `None` if there are several: the authority that signed it
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
            // rcgen keeps one value for each type.
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

    /// T4: two common names count as none. The organization's type (2.5.4.10) in the subject is changed to that of
    /// a common name (2.5.4.3): a careless authority might sign such a certificate.
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

    /// T3: neither basic constraints nor key usage may forbid signing, and one of them must allow it.
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
