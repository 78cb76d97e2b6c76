//! How a client shows who it is, and checks who it talks to.

use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
};

use clap::Args;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Identity},
};

use crate::{failure::Failure, lists::without_bom};

/// Heading of the flags that say which server is called, and how.
pub(crate) const CONNECTION: &str = "Connection";

/// The channel that calls go through, which puts the token on each.
pub type AuthChannel = InterceptedService<Channel, Bearer>;

/// The flags of every command that say who calls.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = CONNECTION)]
pub struct Credentials {
    /// Token that says who calls. Prefer TIPSERVE_TOKEN or a file: other users of this machine
    /// can see the command line.
    #[arg(
        long,
        global = true,
        env = "TIPSERVE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,

    /// File that holds the token.
    #[arg(long, global = true, env = "TIPSERVE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// PEM file of the certificate authorities to trust [default: those that this machine
    /// trusts].
    #[arg(long, global = true, env = "TIPSERVE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// PEM file of this client's certificate (mTLS).
    #[arg(long, global = true, env = "TIPSERVE_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,

    /// PEM file of the private key of --cert.
    #[arg(long, global = true, env = "TIPSERVE_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
}

/// Leaves out the token, so that no log has it.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("token_file", &self.token_file)
            .field("ca", &self.ca)
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// Whether a flag's value is what a variable of the environment says.
fn is_of<T: AsRef<OsStr> + ?Sized>(given: Option<&T>, variable: &str) -> bool {
    given.is_some_and(|given| std::env::var_os(variable).as_deref() == Some(given.as_ref()))
}

/// A file that a flag names, or a variable: those may have spaces around, as `docker --env-file`
/// leaves them.
fn read(flag: &str, path: &Path) -> Result<Vec<u8>, Failure> {
    let trimmed = path.to_str().map_or(path, |text| Path::new(text.trim()));
    fs::read(trimmed).map_err(|error| {
        Failure::Usage(format!(
            "{flag} {}: cannot be read: {error}",
            trimmed.display()
        ))
    })
}

impl Credentials {
    /// Whether any of them asks for TLS.
    pub fn ask_for_tls(&self) -> bool {
        self.tls_files().any(|(given, _)| given.is_some())
    }

    /// The same credentials for an address that is said to be without TLS: what the environment
    /// says of TLS is meant for others.
    pub(crate) fn without_tls_of_environment(&self) -> Self {
        let flags_alone = self
            .tls_files()
            .all(|(given, variable)| given.is_none() || is_of(given, variable));
        if !flags_alone {
            return self.clone();
        }
        Self {
            ca: None,
            cert: None,
            key: None,
            ..self.clone()
        }
    }

    fn tls_files(&self) -> impl Iterator<Item = (Option<&Path>, &'static str)> {
        [
            (self.ca.as_deref(), "TIPSERVE_CA"),
            (self.cert.as_deref(), "TIPSERVE_CERT"),
            (self.key.as_deref(), "TIPSERVE_KEY"),
        ]
        .into_iter()
    }

    /// The TLS configuration that the flags ask for.
    ///
    /// # Errors
    /// A file that cannot be read or is no PEM, and a certificate without its key.
    pub fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let config = match &self.ca {
            None => ClientTlsConfig::new().with_enabled_roots(),
            Some(path) => {
                let pem = read("--ca", path)?;
                // The TLS library would trust nobody, and say that the server's is wrong.
                if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
                    let path = path.display();
                    return Err(Failure::Usage(format!(
                        "--ca {path}: it holds no PEM certificate"
                    )));
                }
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
        };
        match (&self.cert, &self.key) {
            (None, None) => Ok(config),
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(read("--cert", cert)?, read("--key", key)?);
                Ok(config.identity(identity))
            }
            (Some(_), None) => Err(Failure::Usage("--cert needs --key".to_owned())),
            (None, Some(_)) => Err(Failure::Usage("--key needs --cert".to_owned())),
        }
    }

    /// The token that goes with every call.
    ///
    /// # Errors
    /// A file that cannot be read, and a text that is no token.
    pub fn bearer(&self) -> Result<Bearer, Failure> {
        let (token, file) = (self.token.as_deref(), self.token_file.as_deref());
        let of_environment = (
            is_of(token, "TIPSERVE_TOKEN"),
            is_of(file, "TIPSERVE_TOKEN_FILE"),
        );
        // A flag counts before the environment.
        let (token, file) = match (token, file, of_environment) {
            (Some(_), Some(_), (false, false)) => {
                let why = "--token and --token-file do not go together";
                return Err(Failure::Usage(why.to_owned()));
            }
            (Some(_), Some(_), (true, false)) => (None, file),
            _ => (token, file),
        };
        let (token, from) = match (token, file) {
            (Some(token), _) => (token.to_owned(), "--token (or TIPSERVE_TOKEN)".to_owned()),
            (None, Some(path)) => {
                let bytes = read("--token-file", path)?;
                let from = format!("--token-file {}", path.display());
                let text = String::from_utf8(bytes)
                    .map_err(|_| Failure::Usage(format!("{from}: it is not UTF-8 text")))?;
                (text, from)
            }
            (None, None) => return Ok(Bearer(None)),
        };
        let token = without_bom(&token).trim();
        let value: Result<MetadataValue<Ascii>, _> = format!("Bearer {token}").parse();
        match value {
            Ok(mut value) if !token.is_empty() => {
                value.set_sensitive(true);
                Ok(Bearer(Some(value)))
            }
            // Without the text: it may be a token all the same.
            _ => Err(Failure::Usage(format!(
                "{from}: it is empty, or has characters that no token has"
            ))),
        }
    }
}

/// Puts the token on every call.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer")
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let credentials = Credentials {
            token: Some("hunter2".to_owned()),
            ..Credentials::default()
        };
        let shown = format!("{credentials:?} {:?}", credentials.bearer().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        let bad = Credentials {
            token: Some("hunter2\nx".to_owned()),
            ..Credentials::default()
        };
        let error = bad.bearer().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn a_token_is_read_from_a_file_without_its_bom_and_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "\u{feff}abc\r\n").unwrap();
        let credentials = Credentials {
            token_file: Some(file.path().to_owned()),
            ..Credentials::default()
        };
        let Bearer(value) = credentials.bearer().unwrap();
        assert_eq!(value.unwrap().to_str().unwrap(), "Bearer abc");
    }
}
