//! A server that the demo starts: `tipserve serve` on free ports with a
//! temporary store, stopped and removed when the value is dropped.

use std::{
    fs::{self, File},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{connect::Connection, failure::Failure};

/// Loading and warming up a model takes a while.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Longest time that the server may take to answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Embeddings of some thousand pictures.
const EMBEDDING_CACHE: &str = "67108864";

/// The binary that has no `serve`.
const CLIENT_ONLY: &str = "tipserve-client";

/// How many of the server's last lines are shown when it fails.
const SHOWN_LINES: usize = 20;

/// The server process with its store.
#[derive(Debug)]
pub struct LocalServer {
    child: Child,
    folder: TempDir,
}

impl LocalServer {
    /// Starts `tipserve serve` with this bundle and waits until it answers.
    pub async fn start(bundle: &Path) -> Result<(Self, Connection), Failure> {
        let failed =
            |error: io::Error| Failure::Broken(format!("cannot start the server: {error}"));
        let folder = TempDir::with_prefix("tipserve-demo-").map_err(failed)?;
        let store = folder.path().join("store");
        fs::create_dir(&store).map_err(failed)?;
        let (listen, metrics) = free_addresses().map_err(failed)?;
        let log = File::create(log_path(&folder)).map_err(failed)?;
        let child = Command::new(program().map_err(failed)?)
            .arg("serve")
            .arg("--bundle")
            .arg(bundle)
            .arg("--store")
            .arg(&store)
            .args(["--listen", &listen, "--metrics-listen", &metrics])
            // Several draws ask about many of the same pictures.
            .args(["--embedding-cache-bytes", EMBEDDING_CACHE])
            // It serves this process alone, whatever protects other servers.
            .env_remove("TIPSERVE_TLS_CERT")
            .env_remove("TIPSERVE_TLS_KEY")
            .env_remove("TIPSERVE_TLS_CLIENT_CA")
            .env_remove("TIPSERVE_TOKENS")
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            .spawn()
            .map_err(failed)?;
        let mut server = Self { child, folder };
        let connection = server.ready(&listen).await?;
        Ok((server, connection))
    }

    async fn ready(&mut self, listen: &str) -> Result<Connection, Failure> {
        let started = Instant::now();
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended at once ({status})")));
            }
            let answer = match Connection::open_local(listen, CALL_TIMEOUT).await {
                Ok(connection) => connection.info().await.map(|_| connection),
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(connection) => return Ok(connection),
                Err(failure) if started.elapsed() > START_TIMEOUT => {
                    return Err(self.failed(&format!("did not get ready: {failure}")));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn failed(&self, how: &str) -> Failure {
        let log = fs::read_to_string(log_path(&self.folder)).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(SHOWN_LINES)..)
            .unwrap_or_default();
        Failure::Broken(format!("the server {how}. It said:\n{}", last.join("\n")))
    }
}

impl Drop for LocalServer {
    /// The store is removed too, so nothing is lost by killing the process.
    fn drop(&mut self) {
        let _ = self.child.kill();
        // The folder is removed next; the process must not write to it then.
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The program that serves: this one, or `tipserve` if this is only the client.
fn program() -> io::Result<PathBuf> {
    let this = std::env::current_exe()?;
    if this.file_name().is_none_or(|name| name != CLIENT_ONLY) {
        return Ok(this);
    }
    let beside = this.with_file_name("tipserve");
    Ok(if beside.exists() {
        beside
    } else {
        // Looked for on the PATH.
        PathBuf::from("tipserve")
    })
}

fn log_path(folder: &TempDir) -> PathBuf {
    folder.path().join("server.log")
}

/// Two free addresses on this machine. If another process takes one before the
/// server does, the server says so.
fn free_addresses() -> io::Result<(String, String)> {
    let (a, b) = (
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    );
    Ok((a.local_addr()?.to_string(), b.local_addr()?.to_string()))
}
