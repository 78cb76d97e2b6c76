//! TLS by rustls: certificates read from PEM files, and handshakes.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use quick_cache::sync::Cache;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem,
            pem::PemObject as _,
        },
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
        sign::CertifiedKey,
    },
    server::TlsStream,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{AuthError, OpenError, TlsFiles, reload::FromFiles};
use crate::telemetry;

const CERTIFICATE: &str = "the certificate (--tls-cert)";
const KEY: &str = "the private key (--tls-key)";
const CLIENT_CA: &str = "the clients' authorities (--tls-client-ca)";
const CLIENT_CRL: &str = "the revoked certificates (--tls-client-crl)";

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a verified client certificate counts as valid: its signatures are
/// not verified for each call.
const CHECKED: Duration = Duration::from_secs(10);
/// Client certificates whose state is remembered.
const MAX_CHECKED: usize = 4096;
/// What is spoken inside: HTTP/2, and HTTP/1.1 for gRPC-Web and probes.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The server's certificate and the authorities of clients, as last read.
pub struct Tls {
    config: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When a client's certificate, by its hash, was last verified.
    checked: Cache<[u8; 32], Instant>,
    /// When the server's certificate ends.
    pub not_after: DateTime<Utc>,
    /// The subject of the server's certificate.
    pub subject: String,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TLS as {}, until {}", self.subject, self.not_after)
    }
}

/// The subject of a certificate, as RFC 4514 writes it, or if it has none, its
/// first name of another kind.
pub fn subject(certificate: &CertificateDer<'_>) -> String {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return "a certificate that cannot be read".to_owned();
    };
    let subject = parsed.subject().to_string();
    if !subject.is_empty() {
        return subject;
    }
    let names = parsed.subject_alternative_name().ok().flatten();
    names
        .and_then(|names| names.value.general_names.first())
        .map_or_else(
            || "a certificate without a name".to_owned(),
            ToString::to_string,
        )
}

fn certificates(
    what: &'static str,
    path: &Path,
    bytes: &[u8],
) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| OpenError::invalid(what, path, format!("not PEM: {error}")))?;
    if found.is_empty() {
        return Err(OpenError::invalid(
            what,
            path,
            "there is no \"BEGIN CERTIFICATE\" in it",
        ));
    }
    Ok(found)
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, OpenError> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(OpenError::invalid(
            KEY,
            path,
            "it is encrypted; the server needs it without a passphrase (openssl pkey -in KEY -out \
             PLAIN)",
        ));
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| {
        let reason = match error {
            pem::Error::NoItemsFound => "there is no \"BEGIN PRIVATE KEY\" in it".to_owned(),
            other => format!("not PEM: {other}"),
        };
        OpenError::invalid(KEY, path, reason)
    })
}

/// When the first certificate ends, and whose it is.
fn validity(
    path: &Path,
    chain: &[CertificateDer<'_>],
) -> Result<(DateTime<Utc>, String), OpenError> {
    let wrong = |reason: String| OpenError::invalid(CERTIFICATE, path, reason);
    let own = chain
        .first()
        .ok_or_else(|| wrong("it is empty".to_owned()))?;
    let (_, parsed) =
        X509Certificate::from_der(own).map_err(|error| wrong(format!("not X.509: {error}")))?;
    let not_after = DateTime::from_timestamp(parsed.validity().not_after.timestamp(), 0)
        .ok_or_else(|| wrong("its end is no date".to_owned()))?;
    if not_after <= Utc::now() {
        return Err(wrong(format!("it expired at {}", not_after.to_rfc3339())));
    }
    Ok((not_after, subject(own)))
}

/// Verifies clients by their authorities, and by what these have revoked.
fn client_verifier(
    (ca_path, ca): (&Path, &[u8]),
    crl: Option<(&Path, &[u8])>,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, OpenError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(CLIENT_CA, ca_path, ca)? {
        roots
            .add(authority)
            .map_err(|error| OpenError::invalid(CLIENT_CA, ca_path, error))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let Some((path, bytes)) = crl else {
        return builder
            .build()
            .map_err(|error| OpenError::invalid(CLIENT_CA, ca_path, error));
    };
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| OpenError::invalid(CLIENT_CRL, path, format!("not PEM: {error}")))?;
    if lists.is_empty() {
        let reason = "there is no \"BEGIN X509 CRL\" in it";
        return Err(OpenError::invalid(CLIENT_CRL, path, reason));
    }
    builder
        .with_crls(lists)
        .build()
        .map_err(|error| OpenError::invalid(CLIENT_CRL, path, error))
}

impl Tls {
    /// Whether a client's certificates are valid now. A verified one is not
    /// verified again for ten seconds.
    ///
    /// # Errors
    /// [`AuthError::Certificate`] if they have expired, were revoked, or are of
    /// an authority that is no longer trusted.
    pub fn check_client(&self, chain: &[CertificateDer<'static>]) -> Result<(), AuthError> {
        let (Some(clients), Some((own, between))) = (&self.clients, chain.split_first()) else {
            return Ok(());
        };
        let key = *blake3::hash(own).as_bytes();
        if let Some(at) = self.checked.get(&key)
            && at.elapsed() < CHECKED
        {
            return Ok(());
        }
        match clients.verify_client_cert(own, between, UnixTime::now()) {
            Ok(_) => {
                self.checked.insert(key, Instant::now());
                Ok(())
            }
            Err(error) => Err(AuthError::Certificate {
                subject: subject(own),
                reason: error.to_string(),
            }),
        }
    }
}

impl FromFiles for Tls {
    type Files = TlsFiles;
    const KIND: &'static str = "tls";

    fn files(files: &TlsFiles) -> Vec<(&'static str, PathBuf)> {
        let mut all = vec![
            (CERTIFICATE, files.certificate.clone()),
            (KEY, files.key.clone()),
        ];
        all.extend(files.client_ca.clone().map(|path| (CLIENT_CA, path)));
        all.extend(files.client_crl.clone().map(|path| (CLIENT_CRL, path)));
        all
    }

    fn make(files: &TlsFiles, bytes: &[Vec<u8>], _: Option<&Tls>) -> Result<Tls, OpenError> {
        let bytes = |index: usize| bytes.get(index).map(Vec::as_slice).unwrap_or_default();
        let chain = certificates(CERTIFICATE, &files.certificate, bytes(0))?;
        let key = private_key(&files.key, bytes(1))?;
        let (not_after, subject) = validity(&files.certificate, &chain)?;
        let provider = Arc::new(ring::default_provider());
        // Checked separately, for an error that names the right file.
        let unusable = |error: rustls::Error| {
            let reason = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!("it is not the key of {}", files.certificate.display())
                }
                other => format!("it cannot be used: {other}"),
            };
            OpenError::invalid(KEY, &files.key, reason)
        };
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider).map_err(unusable)?;

        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let clients = match &files.client_ca {
            None => None,
            Some(path) => {
                let crl = files.client_crl.as_deref().map(|path| (path, bytes(3)));
                Some(client_verifier((path, bytes(2)), crl, provider)?)
            }
        };
        let builder = match &clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients)),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        Ok(Tls {
            config: Arc::new(config),
            clients,
            checked: Cache::new(MAX_CHECKED),
            not_after,
            subject,
        })
    }

    fn took_effect(&self) {
        telemetry::certificate_ends(self.not_after.timestamp());
        tracing::info!(
            subject = self.subject,
            until = self.not_after.to_rfc3339(),
            "the certificate in force"
        );
    }
}

/// A connection's TLS handshake, which has ten seconds.
///
/// # Errors
/// One that fails, or takes longer.
pub async fn handshake(socket: TcpStream, tls: &Tls) -> io::Result<TlsStream<TcpStream>> {
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await;
    let result = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if result.is_err() {
        telemetry::handshake_failed();
    }
    result
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn pair(name: &str, years: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020 + years, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), key.serialize_pem())
    }

    fn files(client_ca: bool) -> TlsFiles {
        TlsFiles {
            certificate: "cert.pem".into(),
            key: "key.pem".into(),
            client_ca: client_ca.then(|| "ca.pem".into()),
            client_crl: None,
        }
    }

    fn make(parts: &[&str]) -> Result<Tls, OpenError> {
        let bytes: Vec<_> = parts.iter().map(|part| part.as_bytes().to_vec()).collect();
        Tls::make(&files(parts.len() == 3), &bytes, None)
    }

    #[test]
    fn a_certificate_and_its_key_are_taken() {
        let (certificate, key) = pair("a server", 80);
        let tls = make(&[&certificate, &key]).expect("good");
        assert!(tls.subject.contains("CN=a server"), "{}", tls.subject);
        assert_eq!(
            tls.not_after,
            "2100-01-01T00:00:00Z"
                .parse::<DateTime<Utc>>()
                .expect("a time")
        );
        make(&[&certificate, &key, &certificate]).expect("good, with clients' authorities");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        let (certificate, key) = pair("a", 80);
        let (_, other_key) = pair("b", 80);
        let (old, old_key) = pair("c", 1);
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (parts, file, words) in [
            (
                vec!["", key.as_str()],
                "cert.pem",
                "no \"BEGIN CERTIFICATE\"",
            ),
            (vec![&key, &key], "cert.pem", "no \"BEGIN CERTIFICATE\""),
            (
                vec![&certificate, ""],
                "key.pem",
                "no \"BEGIN PRIVATE KEY\"",
            ),
            (
                vec![&certificate, &certificate],
                "key.pem",
                "no \"BEGIN PRIVATE KEY\"",
            ),
            (vec![&certificate, encrypted], "key.pem", "passphrase"),
            (
                vec![&certificate, &other_key],
                "key.pem",
                "is not the key of cert.pem",
            ),
            (vec![&old, &old_key], "cert.pem", "it expired at 2021-01-01"),
            (
                vec![&certificate, &key, ""],
                "ca.pem",
                "no \"BEGIN CERTIFICATE\"",
            ),
        ] {
            let error = make(&parts).expect_err("refused").to_string();
            assert!(error.contains(file) && error.contains(words), "{error}");
        }
    }
}
