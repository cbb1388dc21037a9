//! The versions and cipher suites of TLS that clients are offered, chosen from the suites that rustls has by OpenSSL's
//! cipher strings (openssl-ciphers(1)). Knows names; must not know files or connections.

use tokio_rustls::rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, DEFAULT_CIPHER_SUITES};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

/// The oldest version that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2, the oldest that there is.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// What is offered to clients.
#[derive(Debug, Clone)]
pub struct Offer {
    least: MinVersion,
    suites: Vec<SupportedCipherSuite>,
    /// Whether the order of the suites was chosen by a cipher string.
    is_ordered: bool,
}

/// A cipher string chooses no suite that can be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "no cipher suite is left of {0:?}; 'ECDHE+AESGCM:ECDHE+CHACHA20' are those that there are for TLS 1.2"
)]
pub struct NoCipher(String);

impl Offer {
    /// Offers this version and newer ones, with the suites of an OpenSSL cipher string. As with OpenSSL, a string is
    /// about TLS 1.2, unless it names suites of TLS 1.3. Also returns the words of the string that are not known here,
    /// or choose nothing.
    pub fn new(least: MinVersion, list: Option<&str>) -> Result<(Self, Vec<String>), NoCipher> {
        let Some(list) = list else {
            let suites = DEFAULT_CIPHER_SUITES.to_vec();
            return Ok((Self { least, suites, is_ordered: false }, Vec::new()));
        };
        let mut choice = Choice::default();
        let words = list.split([':', ',', ';', ' ']).filter(|word| !word.is_empty());
        words.for_each(|word| choice.heed(word));
        let Choice { chosen: mut suites, unknown, wants_more, .. } = choice;
        let is_strong = |suite: &SupportedCipherSuite| !(wants_more && has_128_bits(suite));
        suites.retain(is_strong);
        let (has_new, has_old) =
            (suites.iter().any(is_new), suites.iter().any(|suite| !is_new(suite)));
        if !has_new && !has_old && least == MinVersion::V1_2 {
            return Err(NoCipher(list.to_owned()));
        }
        if !has_new {
            suites.extend(DEFAULT_CIPHER_SUITES.iter().filter(|suite| is_new(suite)));
            suites.retain(is_strong);
        }
        Ok((Self { least, suites, is_ordered: true }, unknown))
    }

    /// The versions that there are suites for.
    pub(super) fn versions(&self) -> Vec<&'static SupportedProtocolVersion> {
        let has_old = self.suites.iter().any(|suite| !is_new(suite));
        match self.least {
            MinVersion::V1_2 if has_old && self.suites.iter().any(is_new) => vec![&TLS13, &TLS12],
            MinVersion::V1_2 if has_old => vec![&TLS12],
            MinVersion::V1_2 | MinVersion::V1_3 => vec![&TLS13],
        }
    }

    pub(super) fn suites(&self) -> Vec<SupportedCipherSuite> {
        self.suites.clone()
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.is_ordered
    }
}

fn is_new(suite: &SupportedCipherSuite) -> bool {
    suite.tls13().is_some()
}

fn has_128_bits(suite: &SupportedCipherSuite) -> bool {
    use CipherSuite as S;
    matches!(
        suite.suite(),
        S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
            | S::TLS13_AES_128_GCM_SHA256
    )
}

/// What the words of a cipher string have chosen so far.
#[derive(Default)]
struct Choice {
    chosen: Vec<SupportedCipherSuite>,
    /// What `!` has ruled out for good.
    banned: Vec<CipherSuite>,
    unknown: Vec<String>,
    /// Whether keys of 128 bits are too short for the security level.
    wants_more: bool,
}

impl Choice {
    /// A word behind `@`.
    fn heed_command(&mut self, command: &str) {
        match command.strip_prefix("SECLEVEL=").map(str::parse::<u8>) {
            // The suites of 128 bits go to the end; otherwise the order stays (stable sort).
            None if command == "STRENGTH" => self.chosen.sort_by_key(has_128_bits),
            // Level 3 wants 128 bits, which rustls's suites all have.
            Some(Ok(level @ 0..=5)) => self.wants_more = level > 3,
            _ => self.unknown.push(format!("@{command}")),
        }
    }

    fn heed(&mut self, word: &str) {
        let (word, command) =
            word.split_once('@').map_or((word, None), |(word, command)| (word, Some(command)));
        if !word.is_empty() {
            self.heed_word(word);
        }
        // The command is about all suites that were chosen so far, by this word as well.
        if let Some(command) = command {
            self.heed_command(command);
        }
    }

    fn heed_word(&mut self, word: &str) {
        let (deed, name) = match word.split_at_checked(1) {
            Some((deed @ ("!" | "-" | "+"), name)) => (deed, name),
            _ => ("", word),
        };
        let found: Vec<_> =
            ALL_CIPHER_SUITES.iter().copied().filter(|suite| is(suite, name)).collect();
        // A suite that rustls lacks need not be ruled out, so that word is not reported. A keyword that OpenSSL does not
        // know either may be a mistake, and is reported.
        let is_moot = !deed.is_empty() && (name.contains('-') || name.split('+').all(is_of_others));
        if found.is_empty() && !is_moot {
            self.unknown.push(word.to_owned());
        }
        let is_found = |suite: &SupportedCipherSuite| found.contains(suite);
        match deed {
            "" => {
                let is_fresh = |suite: &&SupportedCipherSuite| {
                    !self.chosen.contains(suite) && !self.banned.contains(&suite.suite())
                };
                let fresh: Vec<_> = found.iter().filter(is_fresh).copied().collect();
                self.chosen.extend(fresh);
            }
            // Moves them to the end.
            "+" => self.chosen.sort_by_key(is_found),
            _ => {
                self.chosen.retain(|suite| !is_found(suite));
                if deed == "!" {
                    self.banned.extend(found.iter().map(SupportedCipherSuite::suite));
                }
            }
        }
    }
}

/// Whether this is a suite's name, or keywords joined by `+` that all apply to it.
fn is(suite: &SupportedCipherSuite, name: &str) -> bool {
    let Some((openssl, words)) = names(suite.suite()) else { return false };
    let iana = suite.suite().as_str().is_some_and(|iana| iana.replace("TLS13_", "TLS_") == name);
    let has = |word: &str| words.contains(&word) || (is_old(words) && EVERY.contains(&word));
    openssl == name || iana || name.split('+').all(has)
}

fn is_old(words: &[&str]) -> bool {
    !words.is_empty()
}

/// The keywords that apply to each suite of TLS 1.2 here.
const EVERY: &[&str] =
    &["ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "kECDHE", "kEECDH", "ECDH", "TLSv1.2", "AEAD"];

/// A suite's name in OpenSSL, and its keywords; those of TLS 1.3 have none.
fn names(suite: CipherSuite) -> Option<(&'static str, &'static [&'static str])> {
    use CipherSuite as S;
    Some(match suite {
        S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => (
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM", "FIPS", "SUITEB128", "SUITEB192"],
        ),
        S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM", "FIPS", "SUITEB128", "SUITEB128ONLY"],
        ),
        S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("ECDHE-ECDSA-CHACHA20-POLY1305", &["ECDSA", "aECDSA", "CHACHA20"])
        }
        S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
            ("ECDHE-RSA-AES256-GCM-SHA384", &["aRSA", "AES", "AES256", "AESGCM", "FIPS"])
        }
        S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            ("ECDHE-RSA-AES128-GCM-SHA256", &["aRSA", "AES", "AES128", "AESGCM", "FIPS"])
        }
        S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            ("ECDHE-RSA-CHACHA20-POLY1305", &["aRSA", "CHACHA20"])
        }
        S::TLS13_AES_256_GCM_SHA384 => ("TLS_AES_256_GCM_SHA384", &[]),
        S::TLS13_AES_128_GCM_SHA256 => ("TLS_AES_128_GCM_SHA256", &[]),
        S::TLS13_CHACHA20_POLY1305_SHA256 => ("TLS_CHACHA20_POLY1305_SHA256", &[]),
        _ => return None,
    })
}

/// Whether this is one of OpenSSL's keywords for suites that rustls does not have, as they are weak or out of use.
fn is_of_others(word: &str) -> bool {
    const OTHERS: &[&str] = &[
        "aNULL",
        "eNULL",
        "NULL",
        "LOW",
        "MEDIUM",
        "EXP",
        "EXPORT",
        "EXPORT40",
        "EXPORT56",
        "DES",
        "3DES",
        "RC2",
        "RC4",
        "IDEA",
        "SEED",
        "MD5",
        "SHA",
        "SHA1",
        "SHA256",
        "SHA384",
        "PSK",
        "kPSK",
        "aPSK",
        "kECDHEPSK",
        "kDHEPSK",
        "kRSAPSK",
        "SRP",
        "kSRP",
        "aSRP",
        "DSS",
        "aDSS",
        "RSA",
        "kRSA",
        "DH",
        "DHE",
        "EDH",
        "kDHE",
        "kEDH",
        "kDH",
        "kDHr",
        "kDHd",
        "aDH",
        "ADH",
        "AECDH",
        "kECDH",
        "kECDHr",
        "kECDHe",
        "aECDH",
        "CAMELLIA",
        "CAMELLIA128",
        "CAMELLIA256",
        "ARIA",
        "ARIA128",
        "ARIA256",
        "ARIAGCM",
        "AESCCM",
        "AESCCM8",
        "CBC",
        "SSLv2",
        "SSLv3",
        "TLSv1",
        "TLSv1.0",
        "TLSv1.1",
        "GOST",
        "kGOST",
        "aGOST",
        "COMPLEMENTOFDEFAULT",
        "COMPLEMENTOFALL",
    ];
    OTHERS.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The suites of TLS 1.2 that a cipher string chooses, as short names, and its unknown words.
    fn chosen(list: &str) -> (String, Vec<String>) {
        let (offer, unknown) = Offer::new(MinVersion::V1_2, Some(list)).expect(list);
        let short = |suite: &SupportedCipherSuite| {
            let (name, words) = names(suite.suite())?;
            let cipher = if name.contains("256-GCM") {
                "256"
            } else if name.contains("128-GCM") {
                "128"
            } else {
                "C"
            };
            let kind = if words.contains(&"aRSA") { "r" } else { "e" };
            is_old(words).then(|| format!("{kind}{cipher}"))
        };
        let shorts: Vec<_> = offer.suites.iter().filter_map(short).collect();
        (shorts.join(" "), unknown)
    }

    #[test]
    fn u6_a_cipher_string_chooses_what_openssl_chooses() {
        let all = "e256 e128 eC r256 r128 rC";
        for (list, suites, unknown) in [
            ("ALL", all, &[][..]),
            ("DEFAULT@SECLEVEL=2", all, &[]),
            ("HIGH:@NOISE", all, &["@NOISE"]),
            ("HIGH:!aNULL:!MD5:@STRENGTH", "e256 eC r256 rC e128 r128", &[]),
            ("aRSA+AES128:aRSA+AES256@STRENGTH", "r256 r128", &[]),
            ("ALL@SECLEVEL=4", "e256 eC r256 rC", &[]),
            ("@SECLEVEL=5:ALL", "e256 eC r256 rC", &[]),
            ("ALL@SECLEVEL=6", all, &["@SECLEVEL=6"]),
            ("ALL@SECLEVEL=high", all, &["@SECLEVEL=high"]),
            ("HIGH:!aNULL:!ECDHE-RSA-DES-CBC3-SHA", all, &[]),
            ("ECDHE+AESGCM", "e256 e128 r256 r128", &[]),
            ("EECDH+AESGCM:EDH+AESGCM", "e256 e128 r256 r128", &["EDH+AESGCM"]),
            ("ECDHE+CHACHA20,ECDHE+AESGCM", "eC rC e256 e128 r256 r128", &[]),
            ("aRSA+AES256 ECDSA+AES128", "r256 e128", &[]),
            ("HIGH:!AES128:!CHACHA", "e256 eC r256 rC", &["!CHACHA"]),
            ("ALL:-AES:AES256", "eC rC e256 r256", &[]),
            ("ALL:!AES:AES256", "eC rC", &[]),
            ("ALL:+AESGCM", "eC rC e256 e128 r256 r128", &[]),
            (
                "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:DHE-RSA-AES128-SHA",
                "r128",
                &["AES128-SHA", "DHE-RSA-AES128-SHA"],
            ),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "r128", &[]),
            ("HIGH:nonsense", all, &["nonsense"]),
            ("TLS_AES_128_GCM_SHA256", "", &[]),
        ] {
            let (found, words) = chosen(list);
            assert_eq!(found, suites, "{list}");
            assert_eq!(words, unknown, "{list}");
        }
    }

    #[test]
    fn u6_nothing_left_is_an_error_where_tls_1_2_is_wanted() {
        for list in ["", ":", "AES128-SHA", "ALL:!ALL", "!HIGH:HIGH", "aNULL", "\u{fc}:+"] {
            let error = Offer::new(MinVersion::V1_2, Some(list)).expect_err(list);
            assert!(error.to_string().contains("no cipher suite is left"), "{error}");
            let (offer, _) = Offer::new(MinVersion::V1_3, Some(list)).expect(list);
            assert_eq!(offer.versions(), [&TLS13]);
        }
        let (offer, _) = Offer::new(MinVersion::V1_2, Some("HIGH")).expect("suites");
        assert_eq!(offer.versions(), [&TLS13, &TLS12]);
        let (offer, _) =
            Offer::new(MinVersion::V1_2, Some("TLS_AES_128_GCM_SHA256")).expect("a suite");
        assert_eq!((offer.versions(), offer.suites().len()), (vec![&TLS13], 1));
    }
}
