//! Servers that are not there, are silent, or stop: every command ends, and
//! says what to do. Nothing here looks at how long anything took.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    fake::{Behaviour, Fake},
    run::{Folder, Ran, command, tipserve},
};

/// The commands that call a server, one of each kind of call.
fn commands(folder: &Folder) -> Vec<Vec<String>> {
    let of = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
    vec![
        of(&["info"]),
        of(&["caches", "list"]),
        of(&["caches", "delete", "c", "--yes"]),
        of(&["classify", "c", folder.str()]),
        of(&["create", "c", "--from", folder.str()]),
        of(&["evaluate", "c", "--from", folder.str()]),
        of(&["embed", "--text", "x"]),
        of(&["finetune", "c"]),
        of(&["demo", "--data", folder.str(), "--shots", "1"]),
    ]
}

fn run_at(fake: &Fake, server: &str, args: &[String]) -> Ran {
    let flags = ["--server", server, "--timeout", "0.5"].map(str::to_owned);
    let args: Vec<_> = flags.iter().chain(args).map(String::as_str).collect();
    tipserve(fake, &args)
}

#[test]
fn a_port_that_accepts_and_is_silent_is_no_server() {
    let fake = Fake::start();
    let folder = Folder::new(&["a"], &[3]);
    // Nobody accepts: the kernel does, as it does for a stopped server.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for args in commands(&folder) {
        let ran = run_at(&fake, &address, &args).expect(5);
        assert!(
            ran.stderr.contains("no answer within 0.5 s")
                && ran.stderr.contains(&format!("--listen {address}")),
            "{args:?}: {ran:?}"
        );
    }
    let https = format!("https://{address}");
    run_at(&fake, &https, &["info".to_owned()]).expect(5);
}

#[test]
fn a_peer_that_hangs_up_or_speaks_something_else_is_no_server() {
    let fake = Fake::start();
    for words in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(words).unwrap();
        });
        let ran = run_at(&fake, &address, &["info".to_owned()]);
        assert_ne!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains("error: "), "{ran:?}");
        peer.join().unwrap();
    }
}

/// Forwards to a server, and from some moment on neither forwards nor closes:
/// a server that is stopped (SIGSTOP), or behind a cable that was pulled.
struct Stopping {
    address: String,
}

impl Stopping {
    /// Forwards the first `bytes` bytes of the server's.
    fn after(server: &Fake, bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (server, left) = (server.address(), Arc::new(AtomicUsize::new(bytes)));
        thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                let server = TcpStream::connect(&server).unwrap();
                let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || forward(up, server, &AtomicUsize::new(usize::MAX)));
                let left = Arc::clone(&left);
                thread::spawn(move || forward(down, client, &left));
            }
        });
        Self { address }
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, left: &AtomicUsize) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                Some(left.saturating_sub(count))
            })
            .unwrap();
        if before < count {
            // Silent, and open for ever.
            thread::park();
        }
        if to.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

#[test]
fn a_server_that_stops_ends_every_call() {
    let fake = Fake::start();
    fake.add_cache("c", &["a"]);
    let folder = Folder::new(&["a"], &[3]);
    // What it says before it stops: its settings, then some of its answers.
    for bytes in [60, 200, 400] {
        for args in commands(&folder) {
            let stopping = Stopping::after(&fake, bytes);
            let ran = run_at(&fake, &stopping.address, &args);
            // Where it got everything before that, it may be done.
            assert!(
                matches!(ran.code, 0 | 1 | 3 | 5),
                "{bytes} {args:?}: {ran:?}"
            );
            if ran.code == 5 {
                let said = ["no answer", "was lost", "no tipserve server answers"];
                assert!(
                    said.iter().any(|words| ran.stderr.contains(words)),
                    "{bytes} {args:?}: {ran:?}"
                );
            }
        }
    }
}

#[test]
fn a_call_that_is_not_answered_in_time_says_what_is_known() {
    let fake = Fake::with(Behaviour {
        silent: true,
        ..Behaviour::default()
    });
    fake.add_cache("c", &["a"]);
    let args = ["--timeout", "0.4", "caches", "show", "c"];
    let ran = tipserve(&fake, &args).expect(5);
    assert!(
        ran.stderr
            .contains("looking up \"c\": no answer from http://")
            && ran.stderr.contains("within 0.4 s (--timeout)")
            && !ran.stderr.contains("unknown"),
        "{ran:?}"
    );
    let ran = tipserve(&fake, &[&args[..], &["--json"]].concat()).expect(5);
    assert_eq!(ran.json()["error"]["code"], "TIMEOUT");
    // What would have changed something may have done so.
    for args in [
        &["--timeout", "0.4", "caches", "delete", "c", "--yes"][..],
        &["--timeout", "0.4", "caches", "alias", "c", "x", "1"],
        &["--timeout", "0.4", "caches", "prune", "c", "--keep", "1"],
    ] {
        let ran = tipserve(&fake, args).expect(5);
        assert!(
            ran.stderr.contains("whether it was done is unknown"),
            "{args:?}: {ran:?}"
        );
    }
    for timeout in ["-1", "x", "1e9"] {
        tipserve(&fake, &["--timeout", timeout, "info"]).expect(2);
    }
}

#[test]
fn an_upload_may_take_longer_than_the_timeout() {
    let fake = Fake::with(Behaviour {
        gated: true,
        ..Behaviour::default()
    });
    let folder = Folder::new(&["a"], &[1]);
    let args = ["--timeout", "0.3", "create", "c", "--from", folder.str()];
    let child = command(&fake, &args)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    fake.wait_for_creation();
    // Several timeouts, in which the server answers pings and nothing else.
    thread::sleep(std::time::Duration::from_millis(1500));
    fake.open_gate();
    Ran::of(child.wait_with_output().unwrap()).expect(0);
}

#[test]
fn no_proxy_leads_to_this_machine() {
    let fake = Fake::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", nobody.local_addr().unwrap());
    let port = fake.address().rsplit(':').next().unwrap().to_owned();
    for server in [fake.address(), format!("localhost:{port}")] {
        let mut run = command(&fake, &["--timeout", "5", "info", "--server", &server]);
        for name in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "all_proxy",
            "grpc_proxy",
        ] {
            run.env(name, &proxy);
        }
        Ran::of(run.output().unwrap()).expect(0);
    }
}

/// Carries a Unix socket's connections to a server.
fn unix_socket(fake: &Fake, path: &Path) {
    let listener = UnixListener::bind(path).unwrap();
    let server = fake.address();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client: UnixStream = client.unwrap();
            let server = TcpStream::connect(&server).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut up, &mut { server }));
            thread::spawn(move || std::io::copy(&mut down, &mut client));
        }
    });
}

#[test]
fn a_server_on_a_unix_socket() {
    let fake = Fake::start();
    let folder = Folder::new(&[], &[]);
    let path = folder.path().join("t.sock");
    unix_socket(&fake, &path);
    for form in ["unix:", "unix://"] {
        let server = format!("{form}{}", path.display());
        let out = tipserve(&fake, &["info", "--json", "--server", &server]);
        let address = format!("unix:{}", path.display());
        assert_eq!(out.expect(0).json()["address"], address);
    }
    let server = format!("unix:{}", folder.path().join("none").display());
    let ran = tipserve(&fake, &["info", "--server", &server]).expect(5);
    assert!(
        ran.stderr.contains(&server) && !ran.stderr.contains("--listen"),
        "{ran:?}"
    );
}

#[test]
fn blank_variables_are_not_set() {
    let fake = Fake::start();
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut run = command(&fake, args);
        for (name, value) in variables {
            run.env(name, value);
        }
        Ran::of(run.output().unwrap())
    };
    let blank = [
        ("TIPSERVE_TOKEN", ""),
        ("TIPSERVE_TOKEN_FILE", " "),
        ("TIPSERVE_CA", ""),
        ("TIPSERVE_CERT", ""),
        ("TIPSERVE_KEY", "\t"),
        ("TIPSERVE_TIMEOUT", ""),
    ];
    run(&["info"], &blank).expect(0);
    // The default address, where there may or may not be a server.
    let ran = run(&["info", "--timeout", "1"], &[("TIPSERVE_SERVER", " ")]);
    assert!(
        ran.code == 0 || ran.stderr.contains("http://127.0.0.1:50051"),
        "{ran:?}"
    );
    run(&["info"], &[("TIPSERVE_TIMEOUT", "soon")]).expect(2);
}
